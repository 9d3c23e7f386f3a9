"""A store gets its schema, whatever it was before: nothing, one without revisions, one that is up to date, one of the future."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from gateway.adapters import sqlite, sqlite_ledger, sqlite_tenants
from gateway.entry import Entry
from gateway.ports import Principal

_WITHOUT_REVISIONS = """
-- Version 1. Times are seconds since the epoch.
CREATE TABLE IF NOT EXISTS tenants (
    name       TEXT PRIMARY KEY,
    tier       TEXT NOT NULL DEFAULT 'paid',
    created_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS keys (
    id         TEXT PRIMARY KEY,                       -- shown in lists and in the ledger; no secret
    hash       BLOB NOT NULL UNIQUE,                   -- SHA-256 of the key
    tenant     TEXT NOT NULL REFERENCES tenants (name),
    project    TEXT NOT NULL,
    models     TEXT,                                   -- JSON list of allowed models; NULL: all
    created_at REAL NOT NULL,
    revoked_at REAL
);
CREATE TABLE IF NOT EXISTS ledger (
    id                TEXT PRIMARY KEY,                -- the call's request id: writing an entry twice changes nothing
    started_at        REAL NOT NULL,
    endpoint          TEXT NOT NULL,
    model             TEXT NOT NULL,
    stream            INTEGER NOT NULL,
    tenant            TEXT NOT NULL,
    project           TEXT NOT NULL,
    key_id            TEXT NOT NULL,
    replica           TEXT,
    status            INTEGER NOT NULL,
    outcome           TEXT NOT NULL,
    error_code        TEXT,
    prompt_tokens     INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cached_tokens     INTEGER NOT NULL,
    queue_s           REAL,
    first_byte_s      REAL,
    duration_s        REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS ledger_started_at ON ledger (started_at);
DROP INDEX IF EXISTS ledger_key;                      -- of earlier stores; nothing asks by it
"""
_ENTRY = Entry(
    "req_1", 1.0, "/v1/completions", "m", True, "anna", "p", "key_1", "r", 200, "completed", None, 3, 4, 5, 0.25, 0.5, 1.0
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite3"


def test_new_store_has_the_tables(path: Path) -> None:
    with closing(sqlite.connect(path)) as connection:
        assert {"tenants", "keys", "ledger"} <= tables(connection)


async def test_store_without_revisions_is_taken_over_with_all_that_is_in_it(path: Path) -> None:
    secret = "dm-of-an-earlier-version"
    with closing(sqlite3.connect(path)) as earlier, earlier:
        earlier.executescript(_WITHOUT_REVISIONS)
        earlier.execute("CREATE INDEX ledger_key ON ledger (key_id, started_at)")
        earlier.execute("INSERT INTO tenants (name, created_at) VALUES ('anna', 1.0)")
        places = ", ".join("?" * 18)
        row = ("key_1", sqlite_tenants.hash_of(secret), "anna", "p", '["m"]', 2.0)
        earlier.execute("INSERT INTO keys (id, hash, tenant, project, models, created_at) VALUES (?, ?, ?, ?, ?, ?)", row)
        earlier.execute(f"INSERT INTO ledger VALUES ({places})", msgspec.structs.astuple(_ENTRY)[:18])  # noqa: S608
    with closing(sqlite.connect(path)) as connection:
        principal = await sqlite_tenants.SqliteTenants(connection).principal(secret)
        assert principal == Principal("key_1", "anna", "p", models=frozenset({"m"}))
        assert sqlite_ledger.read_entries(connection, last=9) == [_ENTRY]
        assert "ledger_key" not in tables(connection), "an index that nothing asks by"
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert connection.execute("SELECT * FROM projects").fetchall() == [("anna", "p", None, "{}", 0, 2.0)]


def test_store_that_was_taken_over_keeps_what_must_hold_between_rows(path: Path) -> None:
    insert = "INSERT INTO keys (id, hash, tenant, project, created_at) VALUES (?, ?, ?, ?, 1.0)"
    with closing(sqlite3.connect(path)) as earlier, earlier:
        earlier.executescript(_WITHOUT_REVISIONS)
        earlier.execute("INSERT INTO tenants (name, created_at) VALUES ('anna', 1.0)")
        earlier.execute(insert, ("key_1", b"1", "anna", "p"))
    with closing(sqlite.connect(path)) as connection:
        connection.execute(insert, ("key_2", b"2", "anna", "p"))
        for row in (("key_3", b"1", "anna", "p"), ("key_3", b"3", "bora", "p"), ("key_3", b"3", "anna", "q")):
            with pytest.raises(sqlite3.IntegrityError):
                connection.execute(insert, row)


def test_store_of_a_newer_version_is_refused_in_one_sentence_and_stays_as_it_is(path: Path) -> None:
    with closing(sqlite.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999_future'")
    before = path.read_bytes()
    with pytest.raises(sqlite.StoreUnusable, match=r"made by a newer daemun \(its schema is 9999_future") as refused:
        sqlite.connect(path)
    assert "\n" not in str(refused.value)
    assert path.read_bytes() == before


def test_store_whose_migration_fails_stays_as_it_was(path: Path) -> None:
    with closing(sqlite3.connect(path)) as odd:
        odd.execute("CREATE VIEW ledger AS SELECT 1 AS id")
    with pytest.raises(sqlite.StoreUnusable) as refused:
        sqlite.connect(path)
    assert "\n" not in str(refused.value)
    with closing(sqlite3.connect(path)) as odd:
        assert tables(odd) == {"ledger"}


@pytest.mark.parametrize("times", [1, 2])
def test_alembic_is_imported_only_where_there_is_something_to_do(path: Path, times: int) -> None:
    for _ in range(times - 1):
        sqlite.connect(path).close()
    code = "import sys; from pathlib import Path; from gateway.adapters import sqlite; sqlite.connect(Path(sys.argv[1])).close()"
    code += "; print('alembic' in sys.modules, 'sqlalchemy' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ([str(times == 1)] * 2)


def test_processes_that_start_at_once_make_one_store(path: Path) -> None:
    code = "import sys; from pathlib import Path; from gateway.adapters import sqlite; sys.stdin.read()"
    code += "; sqlite.connect(Path(sys.argv[1])).close()"
    command = [sys.executable, "-c", code, str(path)]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None  # or `communicate` would look at it
    assert [process.communicate(timeout=60)[1] for process in started] == [""] * 4


def tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite%'")}
