"""A store of tenants in each of the databases, new for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.adapters import postgres, sqlite
from gateway.adapters.postgres_tenants import PostgresDatabase, PostgresTenants
from gateway.adapters.sql_tenants import SqlTenantAdmin
from gateway.adapters.sqlite_tenants import SqliteDatabase, SqliteTenants
from gateway.ports import TenantStore
from gateway.tenant_admin import TenantAdmin
from tests.fakes import FakeClock
from tests.postgres_server import PostgresServer


@dataclass
class Store:
    tenants: TenantStore
    admin: TenantAdmin
    clock: FakeClock


def open_store(request: pytest.FixtureRequest, folder: Path) -> AbstractAsyncContextManager[Store]:
    """The one that the fixture's parameter names."""
    if request.param == "sqlite":
        return sqlite_store(folder / "store.sqlite3")
    server: PostgresServer = request.getfixturevalue("postgres")
    return postgres_store(server.new_database())


@asynccontextmanager
async def sqlite_store(path: Path) -> AsyncIterator[Store]:
    clock = FakeClock()
    with closing(sqlite.connect(path)) as first, closing(sqlite.connect(path)) as second:
        yield Store(SqliteTenants(first), SqlTenantAdmin(SqliteDatabase(second), clock), clock)


@asynccontextmanager
async def postgres_store(url: str) -> AsyncIterator[Store]:
    clock = FakeClock()
    await postgres.migrate(url)
    async with postgres.Postgres(url) as opened:
        yield Store(PostgresTenants(opened), SqlTenantAdmin(PostgresDatabase(opened), clock), clock)
