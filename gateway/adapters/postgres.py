"""One PostgreSQL database: the store that several gateways share. For its keys see `postgres_tenants`.

Its address comes from `gateway.store.url`. Sentences name the server and the database, never the user or the password.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import asyncpg

from gateway.adapters import schema
from gateway.adapters.schema import StoreUnusable
from gateway.errors import StoreUnavailable

PROBLEMS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
_CONNECT_S = 5.0
_COMMAND_S = 5.0
_MIGRATION_WAIT_S = 60.0
_LOCK = 0x6461656D756E  # "daemun": our own among the database's advisory locks


def shown(url: str) -> str:
    """What may be printed of an address."""
    try:
        parts = urlsplit(url)
        return f"The PostgreSQL database {parts.hostname or 'localhost'}:{parts.port or 5432}{parts.path}"
    except ValueError:
        return "The PostgreSQL database of gateway.store.url"


async def connect(url: str) -> asyncpg.Connection:
    """Raises StoreUnusable."""
    try:
        return await asyncpg.connect(url, timeout=_CONNECT_S, server_settings={"application_name": "daemun"})
    except PROBLEMS as problem:
        raise _unusable(url, problem) from problem
    except (ValueError, OverflowError):  # its message may quote the password
        raise StoreUnusable(f"{shown(url)} cannot be used: that is no address. {_REMEDY}") from None


async def migrate(url: str) -> None:
    """Bring the schema up to date, one process after the other, all or nothing. Raises StoreUnusable."""
    connection = await connect(url)
    try:
        if not schema.is_newest(await _revision(connection), shown(url)):
            await _upgrade(url)
    except PROBLEMS as problem:
        raise _unusable(url, problem) from problem
    finally:
        await connection.close()


class Postgres:
    """Connections, made when they are needed: the server may come and go meanwhile. Use as `async with`."""

    def __init__(self, url: str, *, most: int = 4) -> None:
        self._url = url
        self._most = most

    async def __aenter__(self) -> Postgres:
        self._pool = asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=self._most,
            timeout=_CONNECT_S,
            command_timeout=_COMMAND_S,
            reset=_reset_nothing,
            server_settings={"application_name": "daemun"},
        )
        await self._pool
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pool.terminate()  # for what still runs on them nobody waits any more

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """Raises StoreUnavailable. One on which waiting was given up is not used again: nothing may ever come there."""
        try:
            connection = await self._pool.acquire()
            try:
                yield connection
            except (asyncio.CancelledError, *PROBLEMS):
                connection.terminate()
                raise
            finally:
                await self._pool.release(connection)
        except PROBLEMS as problem:
            raise StoreUnavailable from problem


async def _reset_nothing(_: asyncpg.Connection) -> None:
    """Our statements leave nothing in a session, and tidying up would cost each of them a second round trip."""


async def _revision(connection: asyncpg.Connection) -> str | None:
    if await connection.fetchval("SELECT to_regclass($1)", schema.TABLE) is None:
        return None
    found: str | None = await connection.fetchval(schema.REVISION)
    return found


async def _upgrade(url: str) -> None:
    failures = schema.failures()
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: connect(url), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.execute(text(f"SET LOCAL lock_timeout = '{_MIGRATION_WAIT_S:.0f}s'"))
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            await connection.run_sync(schema.upgrade)
    except failures as problem:
        raise _unusable(url, schema.reason(problem)) from problem


_REMEDY = "Correct gateway.store.url, or start the server it names."


def _unusable(url: str, problem: object) -> StoreUnusable:
    said = " ".join(str(problem).split()) or type(problem).__name__
    return StoreUnusable(f"{shown(url)} cannot be used ({said}). {_REMEDY}")
