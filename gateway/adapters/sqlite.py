"""Keys, tenants and ledger in one SQLite file: the default store of a single machine.

Keys are 256 random bits, so their SHA-256 can be kept and looked up without salt or stretching; the key itself is shown once,
at creation, and is nowhere else.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import chain
from pathlib import Path

import msgspec

from gateway.entry import Entry
from gateway.ports import Clock, Principal

KEY_PREFIX = "dm-"
_COLUMNS = ", ".join(Entry.__struct_fields__)
_PLACES = ", ".join("?" for _ in Entry.__struct_fields__)
_INSERT = f"INSERT OR IGNORE INTO ledger ({_COLUMNS}) VALUES "  # noqa: S608 (names of our own fields)
_ROWS_A_STATEMENT = (100, 10, 1)

Row = tuple[object, ...]  # an entry's fields in their order


class StoreUnusable(Exception):
    """The file cannot be used; the message says why and what to do."""


class UnknownKey(Exception):
    """There is no such key, or it is revoked already."""


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key as lists show it: everything but the secret."""

    id: str
    tenant: str
    project: str
    models: tuple[str, ...] | None
    created_at: float
    revoked_at: float | None


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Sums over ledger entries of one tenant, key and model."""

    tenant: str
    project: str
    key_id: str
    model: str
    calls: int
    completed: int
    aborted: int
    prompt_tokens: int
    completion_tokens: int


def store_path(state_dir: Path) -> Path:
    return state_dir / "daemun.sqlite3"


def hash_of(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def connect(path: Path) -> sqlite3.Connection:
    """Open the store, making it on first use. Raises StoreUnusable."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.executescript(resources.files("gateway.adapters").joinpath("schema.sql").read_text())
    except (OSError, sqlite3.Error) as problem:
        raise StoreUnusable(
            f"The store {path} cannot be used ({problem}). Set state_dir to a folder that can be written."
        ) from problem
    return connection


class SqliteTenants:
    """Keys by their hash."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def principal(self, secret: str) -> Principal | None:
        digest = hash_of(secret)
        row = self._connection.execute(
            "SELECT keys.hash, keys.id, keys.tenant, keys.project, tenants.tier, keys.models FROM keys"
            " JOIN tenants ON tenants.name = keys.tenant WHERE keys.hash = ? AND keys.revoked_at IS NULL",
            (digest,),
        ).fetchone()
        if row is None or not hmac.compare_digest(row[0], digest):
            return None
        models = None if row[5] is None else frozenset(msgspec.json.decode(row[5], type=list[str]))
        return Principal(key_id=row[1], tenant=row[2], project=row[3], tier=row[4], models=models)


def create_key(
    connection: sqlite3.Connection, clock: Clock, *, tenant: str, project: str, models: Sequence[str] | None = None
) -> tuple[str, KeyInfo]:
    """Make a key, and its tenant if that is new. Returns the secret, which cannot be had again, and the key's listing."""
    secret = KEY_PREFIX + secrets.token_urlsafe(32)
    info = KeyInfo(
        id="key_" + secrets.token_hex(6),
        tenant=tenant,
        project=project,
        models=None if models is None else tuple(models),
        created_at=clock.time(),
        revoked_at=None,
    )
    with connection:  # commits, or rolls back if anything fails
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT OR IGNORE INTO tenants (name, created_at) VALUES (?, ?)", (tenant, info.created_at))
        connection.execute(
            "INSERT INTO keys (id, hash, tenant, project, models, created_at) VALUES (?, ?, ?, ?, ?, ?)",
            (
                info.id,
                hash_of(secret),
                tenant,
                project,
                None if models is None else msgspec.json.encode(list(models)).decode(),
                info.created_at,
            ),
        )
    return secret, info


def list_keys(connection: sqlite3.Connection) -> list[KeyInfo]:
    rows = connection.execute("SELECT id, tenant, project, models, created_at, revoked_at FROM keys ORDER BY created_at, id")
    return [
        KeyInfo(row[0], row[1], row[2], None if row[3] is None else tuple(msgspec.json.decode(row[3])), row[4], row[5])
        for row in rows
    ]


def revoke_key(connection: sqlite3.Connection, clock: Clock, key_id: str) -> None:
    """Raises UnknownKey."""
    changed = connection.execute(
        "UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (clock.time(), key_id)
    ).rowcount
    if not changed:
        raise UnknownKey(f"There is no key {key_id} that could be revoked. 'daemun keys list' shows all of them.")


def write_entries(connection: sqlite3.Connection, rows: Sequence[Row], rest: Callable[[], None] = lambda: None) -> None:
    """All or none of them. An entry that is there already stays as it is. Many rows a statement cost a third less than one.

    `rest` is called behind each statement, within the transaction.
    """
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        done = 0
        for count in _ROWS_A_STATEMENT:
            while len(rows) - done >= count:
                values = [*chain.from_iterable(rows[done : done + count])]
                connection.execute(_INSERT + ", ".join([f"({_PLACES})"] * count), values)
                done += count
                rest()


def read_entries(connection: sqlite3.Connection, *, last: int) -> list[Entry]:
    """The newest `last` entries, newest first."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM ledger ORDER BY started_at DESC LIMIT ?", (last,))  # noqa: S608
    return [Entry(*row) for row in rows]


def sum_usage(connection: sqlite3.Connection, *, since: float) -> list[UsageRow]:
    rows = connection.execute(
        "SELECT tenant, project, key_id, model, count(*), sum(outcome = 'completed'), sum(outcome = 'aborted'),"
        " sum(prompt_tokens), sum(completion_tokens) FROM ledger WHERE started_at >= ?"
        " GROUP BY tenant, project, key_id, model ORDER BY tenant, project, key_id, model",
        (since,),
    )
    return [UsageRow(*row) for row in rows]
