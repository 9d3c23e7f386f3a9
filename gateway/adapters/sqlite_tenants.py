"""Keys and tenants in the SQLite store; what their rows mean is `sql_tenants`'."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress

from gateway.adapters.sql_tenants import FIND, KEY_PREFIX, Row, SqlTenantAdmin, hash_of, principal_of
from gateway.errors import StoreUnavailable
from gateway.policy.tenancy import AlreadyThere, Key, Values
from gateway.ports import Clock, Principal

__all__ = ["KEY_PREFIX", "SqliteDatabase", "SqliteTenants", "create_key", "hash_of"]


class SqliteTenants:
    """A TenantStore: keys by their hash. A look takes microseconds and waits for nobody, so it is made in the loop itself."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def principal(self, secret: str) -> Principal | None:
        digest = hash_of(secret)
        try:
            row = self._connection.execute(FIND, {"1": digest}).fetchone()
        except sqlite3.Error as problem:
            raise StoreUnavailable from problem
        return principal_of(row, digest)


class SqliteDatabase:
    """For what may wait for others who write, and so for milliseconds: in threads. The connection is this object's alone."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._alone = asyncio.Lock()

    @asynccontextmanager
    async def transaction(self, *, writes: bool = False) -> AsyncIterator[SqliteDatabase]:
        async with self._alone:
            try:
                await self.fetch("BEGIN IMMEDIATE" if writes else "BEGIN")
                yield self
                await self.fetch("COMMIT")
            except sqlite3.Error as problem:
                raise StoreUnavailable from problem
            finally:
                if self._connection.in_transaction:
                    with suppress(sqlite3.Error):
                        self._connection.rollback()

    async def fetch(self, sql: str, *values: object) -> Sequence[Row]:
        """Whoever is cancelled meanwhile waits for its end all the same: what follows must find the connection at rest."""
        running = asyncio.ensure_future(asyncio.to_thread(self._fetch, sql, values))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait({running})
            raise

    def _fetch(self, sql: str, values: Sequence[object]) -> Sequence[Row]:
        return self._connection.execute(sql, {str(number): value for number, value in enumerate(values, 1)}).fetchall()


def create_key(
    connection: sqlite3.Connection,
    clock: Clock,
    *,
    tenant: str,
    project: str,
    models: Sequence[str] | None = None,
    limits: Values | None = None,
) -> tuple[str, Key]:
    """Make a key, and its tenant and project if they are new, inside of an event loop or without one. Returns the secret too.

    `limits` are the tenant's.
    """

    async def create() -> tuple[str, Key]:
        admin = SqlTenantAdmin(SqliteDatabase(connection), clock)
        with suppress(AlreadyThere):
            await admin.create_tenant(tenant, {})
        if limits is not None:
            await admin.change_tenant(tenant, {"limits": limits})
        with suppress(AlreadyThere):
            await admin.create_project(tenant, project, {})
        return await admin.create_key(tenant, project, {"models": models})

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, create()).result()
