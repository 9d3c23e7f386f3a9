"""Keys are shown once and kept as hashes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.adapters import sqlite, sqlite_tenants
from gateway.policy.tenancy import InvalidValue
from tests.fakes import FakeClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "store.sqlite3"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite.connect(path)) as opened:
        yield opened


def test_secret_is_nowhere_on_disk(path: Path, connection: sqlite3.Connection) -> None:
    secret, info = sqlite_tenants.create_key(connection, FakeClock(), tenant="anna", project="p")
    assert secret.startswith(sqlite_tenants.KEY_PREFIX)
    assert len(secret) >= len(sqlite_tenants.KEY_PREFIX) + 43, "256 bits"
    random_part = secret.removeprefix(sqlite_tenants.KEY_PREFIX).encode()
    files = list(path.parent.iterdir())
    assert any(sqlite_tenants.hash_of(secret) in file.read_bytes() for file in files), (
        "the hash is there, so the file was written"
    )
    assert not any(random_part in file.read_bytes() for file in files)
    assert secret not in repr(info)


def test_failed_creation_leaves_the_connection_usable(connection: sqlite3.Connection) -> None:
    with pytest.raises(InvalidValue):
        sqlite_tenants.create_key(connection, FakeClock(), tenant="anna", project="a/b")
    _, key = sqlite_tenants.create_key(connection, FakeClock(), tenant="anna", project="p")
    assert connection.execute("SELECT id FROM keys").fetchall() == [(key.id,)]


def test_store_that_cannot_be_used_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "text").write_text("no database, but long enough to be read as one")
    for unusable in (tmp_path / "file" / "store", tmp_path / "text"):
        with pytest.raises(sqlite.StoreUnusable, match="Set state_dir to a folder that can be written"):
            sqlite.connect(unusable)


def test_opening_again_keeps_everything(path: Path) -> None:
    with closing(sqlite.connect(path)) as first:
        sqlite_tenants.create_key(first, FakeClock(), tenant="anna", project="p")
    with closing(sqlite.connect(path)) as second:
        assert second.execute("SELECT count(*) FROM keys").fetchone() == (1,)
