"""The ledger in PostgreSQL: the same as `sqlite_ledger`, for several gateways with one database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import TypeVar

import asyncpg

from gateway.adapters import ledger_sql, postgres
from gateway.adapters.schema import StoreUnusable
from gateway.entry import NOBODY, Entry
from gateway.ledger_query import Group, LedgerQuery, Rest, Row, RowRefused, UsageSum

T = TypeVar("T")

_ANSWER_S = 30.0
_ROWS_A_STATEMENT = 500
_TYPES = {
    "str": "text[]",
    "str | None": "text[]",
    "float": "double precision[]",
    "float | None": "double precision[]",
    "int": "bigint[]",
    "bool": "boolean[]",
}
_ARRAYS = ", ".join(f"${at}::{_TYPES[kind]}" for at, kind in enumerate(Entry.__annotations__.values(), 1))
_INSERT = f"INSERT INTO ledger ({ledger_sql.NAMES}) SELECT * FROM unnest({_ARRAYS}) ON CONFLICT (id) DO NOTHING"  # noqa: S608
_INSERT_BOTH = f"""
    WITH new AS ({_INSERT} RETURNING id, started_at, tenant)
    INSERT INTO outbox (id, due_at) SELECT id, started_at FROM new WHERE tenant <> '{NOBODY}' ON CONFLICT (id) DO NOTHING
"""  # noqa: S608
_TAKE = f"""
    WITH due AS (SELECT id FROM outbox WHERE due_at <= $1 ORDER BY seq LIMIT $2 FOR UPDATE SKIP LOCKED),
        taken AS (UPDATE outbox SET due_at = $3 FROM due WHERE outbox.id = due.id RETURNING outbox.id, seq)
    SELECT {ledger_sql.NAMES} FROM ledger JOIN taken USING (id) ORDER BY seq
"""  # noqa: S608
_REFUSALS = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.CharacterNotInRepertoireError)


class PostgresLedger:
    """A `LedgerStore`. It connects when it is needed first, and anew after a failure."""

    def __init__(self, url: str, *, with_events: bool = False) -> None:
        self._url = url
        self._insert = _INSERT_BOTH if with_events else _INSERT
        self._runner = asyncio.Runner()
        self._connection: asyncpg.Connection | None = None

    def write(self, rows: Sequence[Row], rest: Rest = lambda: None) -> None:
        async def work(connection: asyncpg.Connection) -> None:
            left = iter(rows)
            async with connection.transaction():
                while some := list(islice(left, _ROWS_A_STATEMENT)):
                    await connection.execute(self._insert, *_columns(some))
                    rest()

        self._do(work)

    def sums(self, query: LedgerQuery, groups: Sequence[Group]) -> list[UsageSum]:
        statement, values = ledger_sql.sums(ledger_sql.POSTGRES, query, groups)
        rows = self._do(lambda connection: connection.fetch(statement, *values))
        return sorted((ledger_sql.to_sum(row, groups) for row in rows), key=lambda row: row.group)

    def entries(self, query: LedgerQuery, last: int) -> list[Entry]:
        statement, values = ledger_sql.entries(ledger_sql.POSTGRES, query, last)
        return [Entry(*row) for row in self._do(lambda connection: connection.fetch(statement, *values))]

    def holds(self, ids: Sequence[str]) -> set[str]:
        rows = self._do(lambda connection: connection.fetch("SELECT id FROM ledger WHERE id = ANY($1::text[])", ids))
        return {row[0] for row in rows}

    def take_events(self, most: int, now: float, until: float) -> list[Entry]:
        return [Entry(*row) for row in self._do(lambda connection: connection.fetch(_TAKE, now, most, until))]

    def drop_events(self, ids: Sequence[str]) -> None:
        self._do(lambda connection: connection.execute("DELETE FROM outbox WHERE id = ANY($1::text[])", ids))

    def put_back_events(self, ids: Sequence[str], due_at: float) -> None:
        statement = "UPDATE outbox SET due_at = $2 WHERE id = ANY($1::text[])"
        self._do(lambda connection: connection.execute(statement, ids, due_at))

    def count_events(self) -> int:
        return int(self._do(lambda connection: connection.fetchval("SELECT count(*) FROM outbox")))

    def close(self) -> None:
        self._leave()
        self._runner.close()

    def _do(self, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        return self._runner.run(self._within_time(work))

    async def _within_time(self, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        try:
            if self._connection is None or self._connection.is_closed():
                await postgres.migrate(self._url)
                self._connection = await postgres.connect(self._url)
            async with asyncio.timeout(_ANSWER_S):
                return await work(self._connection)
        except _REFUSALS as problem:
            raise RowRefused(str(problem)) from problem
        except postgres.PROBLEMS as problem:
            self._leave()
            raise StoreUnusable(f"{postgres.shown(self._url)} cannot be used ({problem or type(problem).__name__}).") from problem

    def _leave(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


def _columns(rows: Sequence[Row]) -> list[list[object]]:
    """PostgreSQL's text has no NUL."""
    return [
        [value.replace("\0", "\N{REPLACEMENT CHARACTER}") if type(value) is str else value for value in column]
        for column in zip(*rows, strict=True)
    ]
