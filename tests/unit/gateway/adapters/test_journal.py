"""Entries reach their store exactly once, however often it fails."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from gateway.adapters import sqlite
from gateway.adapters.journal import JournaledLedger
from gateway.entry import Entry

NEVER_S = 3600.0  # tests move entries themselves


def entry(name: str) -> Entry:
    return Entry(id=name, started_at=1.0, endpoint="/v1/completions", model="모델", stream=False, outcome="completed")


class Store:
    """Takes entries, or fails as told."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.fails_with: Exception | None = None
        self.tries = 0

    def write(self, entries: Sequence[Entry]) -> None:
        self.tries += 1
        if self.fails_with is not None:
            raise self.fails_with
        self.entries.update({new.id: new for new in entries})


def ledger(folder: Path, store: Store) -> JournaledLedger:
    return JournaledLedger(folder, store.write, retry_on=(sqlite3.Error, sqlite.StoreUnusable), move_every_s=NEVER_S)


def test_entry_is_on_disk_when_record_returns(tmp_path: Path) -> None:
    store = Store()
    with ledger(tmp_path, store) as journal:
        journal.record(entry("req_1"))
        (file,) = tmp_path.glob("*.journal")
        assert msgspec.json.decode(file.read_bytes().rstrip(b"\0"), type=Entry) == entry("req_1")
        assert file.stat().st_mode & 0o077 == 0, "for our eyes only"


def test_moved_entries_are_in_the_store_and_no_longer_in_the_folder(tmp_path: Path) -> None:
    store = Store()
    with ledger(tmp_path, store) as journal:
        journal.record(entry("req_1"))
        journal.move()
        assert store.entries == {"req_1": entry("req_1")}
        journal.record(entry("req_2"))
    assert list(store.entries) == ["req_1", "req_2"]
    assert list(tmp_path.iterdir()) == []


def test_nothing_recorded_means_nothing_written(tmp_path: Path) -> None:
    store = Store()
    with ledger(tmp_path, store) as journal:
        journal.move()
    assert store.tries == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "failure",
    [sqlite3.OperationalError("database is locked"), sqlite.StoreUnusable("not now"), OSError("no space left on device")],
)
def test_entries_wait_while_the_store_fails_and_arrive_later(tmp_path: Path, failure: Exception) -> None:
    store = Store()
    store.fails_with = failure
    with ledger(tmp_path, store) as journal:
        journal.record(entry("req_1"))
        journal.move()
        journal.record(entry("req_2"))
        journal.move()
        assert store.entries == {}
        store.fails_with = None
        journal.move()
        assert sorted(store.entries) == ["req_1", "req_2"]


def test_entries_outlive_a_store_that_fails_to_the_end(tmp_path: Path) -> None:
    broken, mended = Store(), Store()
    broken.fails_with = sqlite3.OperationalError("database is locked")
    with ledger(tmp_path, broken) as journal:
        journal.record(entry("req_1"))
    with ledger(tmp_path, mended) as journal:
        journal.move()
    assert list(mended.entries) == ["req_1"]


def test_torn_last_line_is_skipped_and_the_others_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = msgspec.json.encode(entry("req_1"))
    (tmp_path / "77-dead.journal").write_bytes(whole + b"\n" + whole[: len(whole) // 2])
    store = Store()
    with ledger(tmp_path, store) as journal:
        journal.move()
    assert list(store.entries) == ["req_1"]
    assert "77-dead.journal" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_journal_that_somebody_writes_is_left_alone(tmp_path: Path) -> None:
    """Two gateways share the folder; each moves its own and what the dead have left."""
    first, second = Store(), Store()
    with ledger(tmp_path, first) as writing, ledger(tmp_path, second) as other:
        writing.record(entry("req_1"))
        other.move()
        assert second.entries == {}
        writing.record(entry("req_2"))
    assert sorted(first.entries) == ["req_1", "req_2"]


def test_journal_moved_twice_is_in_the_database_once(tmp_path: Path) -> None:
    """As if the process had died between the writing and the deleting."""
    database, folder = tmp_path / "store.sqlite3", tmp_path / "journal"
    folder.mkdir()

    def write(entries: Sequence[Entry]) -> None:
        with closing(sqlite.connect(database)) as connection:
            sqlite.write_entries(connection, entries)

    for _ in range(2):
        (folder / "77-dead.journal").write_bytes(msgspec.json.encode(entry("req_1")) + b"\n")
        with JournaledLedger(folder, write, retry_on=(sqlite3.Error,), move_every_s=NEVER_S) as journal:
            journal.move()
    with closing(sqlite.connect(database)) as connection:
        assert [read.id for read in sqlite.read_entries(connection, last=9)] == ["req_1"]


def test_a_full_file_is_followed_by_another(tmp_path: Path) -> None:
    store = Store()
    long = "모델" * 100_000
    with ledger(tmp_path, store) as journal:
        for number in range(9):
            new = entry(f"req_{number}")
            new.model = long
            journal.record(new)
        assert len(list(tmp_path.iterdir())) == 2
    assert sorted(store.entries) == [f"req_{number}" for number in range(9)]


def test_record_outside_of_the_block_fails_loudly(tmp_path: Path) -> None:
    journal = ledger(tmp_path, Store())
    with pytest.raises(RuntimeError):
        journal.record(entry("req_1"))
    with journal:
        pass
    with pytest.raises(RuntimeError):
        journal.record(entry("req_2"))
