"""What all tests share: word of how the gateway that they test runs, and a PostgreSQL server for those that ask for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from gateway import compiled
from tests.postgres_server import PostgresServer, postgres_server

# How long an example takes says more of what else the machine does than of what is tested.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


def pytest_report_header() -> str:
    return f"gateway: {f'compiled, {compiled.folder().name}' if compiled.is_running() else 'plain Python'}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One for all tests; each makes a database of its own in it."""
    with postgres_server() as server:
        yield server
