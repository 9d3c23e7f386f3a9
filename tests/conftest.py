"""What all tests share: word of how the gateway that they test runs, and a PostgreSQL server for those that ask for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway import compiled
from tests.postgres_server import PostgresServer, postgres_server


def pytest_report_header() -> str:
    return f"gateway: {f'compiled, {compiled.folder().name}' if compiled.is_running() else 'plain Python'}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One for all tests; each makes a database of its own in it."""
    with postgres_server() as server:
        yield server
