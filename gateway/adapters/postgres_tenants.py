"""Keys and tenants in the PostgreSQL store; what their rows mean is `sql_tenants`'."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg

from gateway.adapters.postgres import Postgres
from gateway.adapters.sql_tenants import FIND, Row, hash_of, principal_of
from gateway.ports import Principal

_LOCK = 0x74656E616E7473  # "tenants", among the database's advisory locks: whoever changes one of them, or what is theirs


class PostgresTenants:
    """A TenantStore: keys by their hash."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def principal(self, secret: str) -> Principal | None:
        digest = hash_of(secret)
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(FIND, digest)
        return principal_of(row and tuple(row), digest)


class PostgresDatabase:
    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    @asynccontextmanager
    async def transaction(self, *, writes: bool = False) -> AsyncIterator[_Statements]:
        async with self._postgres.connection() as connection, connection.transaction(readonly=not writes):
            if writes:
                await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            yield _Statements(connection)


class _Statements:
    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def fetch(self, sql: str, *values: object) -> Sequence[Row]:
        return [tuple(row) for row in await self._connection.fetch(sql, *values)]
