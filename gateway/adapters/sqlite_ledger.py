"""The ledger in the SQLite store: entries, keyed by call, sums over them, and the outbox of events."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from gateway.adapters import ledger_sql, sqlite
from gateway.adapters.schema import StoreUnusable
from gateway.entry import NOBODY, Entry
from gateway.ledger_query import Group, LedgerQuery, Rest, Row, RowRefused, UsageSum

T = TypeVar("T")

_PLACES = ", ".join("?" for _ in ledger_sql.COLUMNS)
_INSERT = f"INSERT INTO ledger ({ledger_sql.NAMES}) VALUES "  # noqa: S608 (names of our own fields)
_UNLESS_THERE = " ON CONFLICT (id) DO NOTHING"  # "OR IGNORE" would also ignore, and lose, what breaks another rule
_ROWS_A_STATEMENT = (100, 10, 1)
_MOST_ASKED = 500  # ids in one statement
_BOOLEANS = tuple(at for at, name in enumerate(ledger_sql.COLUMNS) if name in ("stream", "estimated"))


class SqliteLedger:
    """A `LedgerStore`. The file is opened when it is needed first, and anew after a failure or when another is in its place.

    `for_good` is that what is written survives a loss of power from then on: whoever deletes the journal after it needs that.
    """

    def __init__(self, path: Path, *, with_events: bool = False, for_good: bool = False, wait_s: float | None = None) -> None:
        self._path = path
        self._with_events = with_events
        self._for_good = for_good
        self._wait_s = wait_s
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None

    def write(self, rows: Sequence[Row], rest: Rest = lambda: None) -> None:
        self._do(lambda connection: _write(connection, rows, rest, with_events=self._with_events))

    def sums(self, query: LedgerQuery, groups: Sequence[Group]) -> list[UsageSum]:
        statement, values = ledger_sql.sums(ledger_sql.SQLITE, query, groups)
        return [ledger_sql.to_sum(row, groups) for row in self._fetch(statement, values)]

    def entries(self, query: LedgerQuery, last: int) -> list[Entry]:
        statement, values = ledger_sql.entries(ledger_sql.SQLITE, query, last)
        return [_entry(row) for row in self._fetch(statement, values)]

    def holds(self, ids: Sequence[str]) -> set[str]:
        found: set[str] = set()
        for begin in range(0, len(ids), _MOST_ASKED):
            some = ids[begin : begin + _MOST_ASKED]
            statement = f"SELECT id FROM ledger WHERE id IN ({_places(some)})"  # noqa: S608 (places only)
            found.update(row[0] for row in self._fetch(statement, some))
        return found

    def take_events(self, most: int, now: float, until: float) -> list[Entry]:
        return self._do(lambda connection: _take_events(connection, most, now, until))

    def drop_events(self, ids: Sequence[str]) -> None:
        self._fetch(f"DELETE FROM outbox WHERE id IN ({_places(ids)})", ids)  # noqa: S608 (places only)

    def put_back_events(self, ids: Sequence[str], due_at: float) -> None:
        self._fetch(f"UPDATE outbox SET due_at = ? WHERE id IN ({_places(ids)})", [due_at, *ids])  # noqa: S608 (places only)

    def count_events(self) -> int:
        ((count,),) = self._fetch("SELECT count(*) FROM outbox", ())
        return int(count)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _fetch(self, statement: str, values: Sequence[object]) -> list[Any]:
        return self._do(lambda connection: connection.execute(statement, values).fetchall())

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._open()
        try:
            return work(connection)
        except (sqlite3.IntegrityError, OverflowError, sqlite3.InterfaceError) as problem:
            self.close()
            raise RowRefused(str(problem)) from problem
        except sqlite3.Error as problem:
            self.close()
            raise StoreUnusable(f"The store {self._path} cannot be used ({problem}).") from problem

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._identity() != self._opened:
            self.close()
        if self._connection is None:
            self._connection = sqlite.connect(self._path)
            if self._for_good:
                self._connection.execute("PRAGMA synchronous=FULL")
            if self._wait_s is not None:
                self._connection.execute(f"PRAGMA busy_timeout={self._wait_s * 1000:.0f}")
            self._opened = self._identity()
        return self._connection

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino


def read_entries(connection: sqlite3.Connection, *, last: int) -> list[Entry]:
    """The newest, newest first."""
    statement, values = ledger_sql.entries(ledger_sql.SQLITE, LedgerQuery(), last)
    return [_entry(row) for row in connection.execute(statement, values)]


def _write(connection: sqlite3.Connection, rows: Sequence[Row], rest: Rest, *, with_events: bool) -> None:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for batch in _batches(rows):
            _insert(connection, batch, with_events=with_events)
            rest()


def _batches(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Many rows a statement cost a third less than one; of few sizes, as each is a statement of its own to prepare."""
    done = 0
    for size in _ROWS_A_STATEMENT:
        while len(rows) - done >= size:
            yield rows[done : done + size]
            done += size


def _insert(connection: sqlite3.Connection, batch: Sequence[Row], *, with_events: bool) -> None:
    values = [*chain.from_iterable(batch)]
    statement = _INSERT + ", ".join([f"({_PLACES})"] * len(batch)) + _UNLESS_THERE
    if with_events:
        new = connection.execute(statement + " RETURNING id, started_at, tenant", values).fetchall()
        clients = [(id, due_at) for id, due_at, tenant in new if tenant != NOBODY]
        connection.executemany("INSERT OR IGNORE INTO outbox (id, due_at) VALUES (?, ?)", clients)
    else:
        connection.execute(statement, values)


def _take_events(connection: sqlite3.Connection, most: int, now: float, until: float) -> list[Entry]:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        rows = connection.execute(
            f"SELECT {ledger_sql.NAMES} FROM ledger JOIN outbox USING (id) WHERE due_at <= ? ORDER BY seq LIMIT ?",  # noqa: S608
            (now, most),
        ).fetchall()
        taken = [row[0] for row in rows]
        connection.execute(f"UPDATE outbox SET due_at = ? WHERE id IN ({_places(taken)})", [until, *taken])  # noqa: S608
    return [_entry(row) for row in rows]


def _entry(row: Sequence[object]) -> Entry:
    """SQLite has no booleans."""
    values = list(row)
    for at in _BOOLEANS:
        values[at] = bool(values[at])
    return Entry(*values)  # type: ignore[arg-type]


def _places(values: Sequence[object]) -> str:
    return ", ".join("?" for _ in values)
