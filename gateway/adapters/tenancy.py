"""The store of tenants that the settings name: PostgreSQL where there is an address of one, else the SQLite file in state_dir."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

from gateway.adapters import sqlite
from gateway.adapters.sql_tenants import SqlTenantAdmin
from gateway.adapters.sqlite_tenants import SqliteDatabase, SqliteTenants
from gateway.ports import Clock, TenantStore
from gateway.tenant_admin import TenantAdmin


@dataclass(frozen=True, slots=True)
class Tenancy:
    """The two ports to it, usable as long as `running` is: an `async with` block."""

    tenants: TenantStore
    admin: TenantAdmin
    running: AbstractAsyncContextManager[object]


def open_tenancy(url: str | None, state_dir: Path, clock: Clock) -> Tenancy:
    """Ready, its schema up to date. Raises StoreUnusable."""
    return _sqlite(state_dir, clock) if url is None else _postgres(url, clock)


def _sqlite(state_dir: Path, clock: Clock) -> Tenancy:
    path = sqlite.store_path(state_dir)
    own, admins = sqlite.connect(path), sqlite.connect(path)

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        with closing(own), closing(admins):
            yield

    return Tenancy(SqliteTenants(own), SqlTenantAdmin(SqliteDatabase(admins), clock), running())


def _postgres(url: str, clock: Clock) -> Tenancy:
    from gateway.adapters import postgres, postgres_tenants  # here and not above: it takes a tenth of a second

    with ThreadPoolExecutor(1) as thread:  # there may be an event loop in this one
        thread.submit(asyncio.run, postgres.migrate(url)).result()
    database = postgres.Postgres(url)
    admin = SqlTenantAdmin(postgres_tenants.PostgresDatabase(database), clock)
    return Tenancy(postgres_tenants.PostgresTenants(database), admin, database)
