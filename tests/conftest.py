"""What all tests share: word of how the gateway that they test runs."""

from __future__ import annotations

from gateway import compiled


def pytest_report_header() -> str:
    return f"gateway: {f'compiled, {compiled.folder().name}' if compiled.is_running() else 'plain Python'}"
