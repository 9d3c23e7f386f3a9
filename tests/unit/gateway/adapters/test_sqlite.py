"""Keys are shown once and kept as hashes; entries are written once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from gateway.adapters import sqlite, sqlite_ledger, sqlite_tenants
from gateway.entry import Entry
from tests.fakes import FakeClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "store.sqlite3"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite.connect(path)) as opened:
        yield opened


def entry(number: int, *, outcome: str = "completed", tenant: str = "anna") -> Entry:
    return Entry(
        id=f"req_{number}",
        started_at=float(number),
        endpoint="/v1/completions",
        model="m",
        stream=True,
        tenant=tenant,
        project="p",
        key_id="key_1",
        replica="r",
        status=200,
        outcome=outcome,
        prompt_tokens=3,
        completion_tokens=number,
        first_byte_s=0.5,
        duration_s=1.25,
    )


def write(connection: sqlite3.Connection, entries: Iterable[Entry]) -> None:
    sqlite_ledger.write_entries(connection, [msgspec.structs.astuple(entry) for entry in entries])


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


def test_lists_show_keys_without_secrets(connection: sqlite3.Connection) -> None:
    clock = FakeClock()
    _, first = sqlite_tenants.create_key(connection, clock, tenant="anna", project="p", models=["대문/m"])
    clock.advance(1)
    _, second = sqlite_tenants.create_key(connection, clock, tenant="anna", project="q")
    assert sqlite_tenants.list_keys(connection) == [first, second]
    sqlite_tenants.revoke_key(connection, clock, first.id)
    assert [key.revoked_at is None for key in sqlite_tenants.list_keys(connection)] == [False, True]


def test_key_is_revoked_once_and_unknown_ones_never(connection: sqlite3.Connection) -> None:
    _, info = sqlite_tenants.create_key(connection, FakeClock(), tenant="anna", project="p")
    sqlite_tenants.revoke_key(connection, FakeClock(), info.id)
    for key_id in (info.id, "key_nobody", ""):
        with pytest.raises(sqlite_tenants.UnknownKey, match="daemun keys list"):
            sqlite_tenants.revoke_key(connection, FakeClock(), key_id)


def test_failed_creation_leaves_the_connection_usable(connection: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.Error):
        sqlite_tenants.create_key(connection, FakeClock(), tenant="anna", project=None)  # type: ignore[arg-type]
    sqlite_tenants.create_key(connection, FakeClock(), tenant="anna", project="p")
    assert len(sqlite_tenants.list_keys(connection)) == 1


def test_entry_comes_back_as_it_was_written(connection: sqlite3.Connection) -> None:
    write(connection, (entry(number) for number in range(123)))
    read = sqlite_ledger.read_entries(connection, last=2)
    assert read == [entry(122), entry(121)]
    assert len(sqlite_ledger.read_entries(connection, last=999)) == 123


def test_entry_written_twice_is_there_once(connection: sqlite3.Connection) -> None:
    write(connection, [entry(1), entry(2)])
    write(connection, [entry(2, outcome="aborted"), entry(3)])
    assert [read.id for read in sqlite_ledger.read_entries(connection, last=9)] == ["req_3", "req_2", "req_1"]
    assert {read.outcome for read in sqlite_ledger.read_entries(connection, last=9)} == {"completed"}


def test_entries_are_written_all_or_none(connection: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.Error):
        sqlite_ledger.write_entries(
            connection, [*(msgspec.structs.astuple(entry(number)) for number in range(105)), ("too short",)]
        )
    assert sqlite_ledger.read_entries(connection, last=9) == []


def test_usage_sums_calls_and_tokens_since_a_time(connection: sqlite3.Connection) -> None:
    outcomes = ["completed", "aborted", "failed", "completed"]
    write(connection, [entry(number, outcome=outcome) for number, outcome in enumerate(outcomes)])
    write(connection, [entry(9, tenant="bora")])
    anna, bora = sqlite_ledger.sum_usage(connection, since=1.0)
    assert (anna.tenant, anna.calls, anna.completed, anna.aborted) == ("anna", 3, 1, 1)
    assert (anna.prompt_tokens, anna.completion_tokens) == (9, 6)
    assert (bora.tenant, bora.calls) == ("bora", 1)
    assert sqlite_ledger.sum_usage(connection, since=100.0) == []


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
        assert len(sqlite_tenants.list_keys(second)) == 1
