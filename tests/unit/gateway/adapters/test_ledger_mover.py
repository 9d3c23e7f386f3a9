"""Entries reach their store exactly once, however often it fails."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from gateway.adapters import sqlite, sqlite_ledger
from gateway.adapters.journal import Journal
from gateway.adapters.ledger_mover import Mover, Store
from gateway.entry import Entry


def entry(name: str) -> Entry:
    return Entry(id=name, started_at=1.0, endpoint="/v1/completions", model="모델", stream=False, outcome="completed")


def line(name: str) -> bytes:
    return msgspec.json.encode(entry(name)) + b"\n"


class FakeStore:
    """Takes entries, or fails as told."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.fails_with: Exception | None = None
        self.tries = 0

    def write(self, rows: Sequence[sqlite_ledger.Row], rest: Callable[[], None]) -> None:
        self.tries += 1
        if self.fails_with is not None:
            raise self.fails_with
        self.entries.update({str(row[0]): msgspec.convert(row, Entry) for row in rows})


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def mover(tmp_path: Path, store: FakeStore) -> Mover:
    return Mover(tmp_path, store.write)


def test_moved_entries_are_in_the_store_and_no_longer_in_the_folder(tmp_path: Path, store: FakeStore, mover: Mover) -> None:
    with Journal(tmp_path) as journal:
        journal.record(entry("req_1"))
        journal.rotate()
        mover.move()
        assert store.entries == {"req_1": entry("req_1")}
        journal.record(entry("req_2"))
    mover.move()
    assert list(store.entries) == ["req_1", "req_2"]
    assert list(tmp_path.iterdir()) == []


def test_journal_that_somebody_writes_is_left_alone(tmp_path: Path, store: FakeStore, mover: Mover) -> None:
    """Several gateways may share the folder."""
    with Journal(tmp_path) as journal:
        journal.record(entry("req_1"))
        mover.move()
        mover.move(ended="77-another")
        assert store.tries == 0
        journal.record(entry("req_2"))
    mover.move(ended=journal.owner)
    assert list(store.entries) == ["req_1", "req_2"]


def test_empty_journal_goes_and_nothing_is_written(tmp_path: Path, store: FakeStore, mover: Mover) -> None:
    (tmp_path / "77-dead-1.journal").touch()
    mover.move()
    assert store.tries == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failure", [sqlite3.OperationalError("database is locked"), sqlite.StoreUnusable("not now")])
def test_entries_wait_while_the_store_fails_and_arrive_later(
    tmp_path: Path, store: FakeStore, mover: Mover, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    store.fails_with = failure
    (tmp_path / "77-dead-1.journal").write_bytes(line("req_1"))
    (tmp_path / "77-dead-2.journal").write_bytes(line("req_2"))
    for tries in (1, 2, 3):
        mover.move()
        assert store.tries == tries, "a store that fails is asked once a round"
    assert caplog.text.count("does not take entries") == 1, "it is said once"
    store.fails_with = None
    mover.move()
    assert sorted(store.entries) == ["req_1", "req_2"]
    assert list(tmp_path.iterdir()) == []


def test_file_that_cannot_be_read_keeps_no_other_from_being_moved(
    tmp_path: Path, store: FakeStore, mover: Mover, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "1-folder.journal").mkdir()
    (tmp_path / "77-dead-1.journal").write_bytes(line("req_1"))
    mover.move()
    assert list(store.entries) == ["req_1"]
    assert "1-folder.journal" in caplog.text


@pytest.mark.parametrize(
    "bad",
    [
        line("req_9")[:40],
        b"\xff\xfe",
        b'["\xff\xfe",1.0,"/","m",true]',
        b"[]",
        b"{}",
        b'["req_9","1.0","/","m",true]',
        b'["req_9",1.0,"/","m",true,"","","","",0,"",null,%d]' % 2**63,
        b"\0\0\0",
    ],
)
def test_line_that_cannot_be_read_is_skipped_and_the_others_are_kept(
    tmp_path: Path, store: FakeStore, mover: Mover, bad: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "77-dead-1.journal").write_bytes(line("req_1") + bad + b"\n" + line("req_2"))
    mover.move()
    assert list(store.entries) == ["req_1", "req_2"]
    assert caplog.text.count("77-dead-1.journal cannot be read") == 1
    assert list(tmp_path.iterdir()) == []


def test_torn_last_line_is_skipped(tmp_path: Path, store: FakeStore, mover: Mover, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "77-dead-1.journal").write_bytes(line("req_1") + line("req_2")[:40])
    mover.move()
    assert list(store.entries) == ["req_1"]
    assert caplog.text.count("77-dead-1.journal cannot be read") == 1


def test_lines_of_an_older_version_have_fewer_fields(
    tmp_path: Path, store: FakeStore, mover: Mover, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "77-old-1.journal").write_bytes(b'["req_1",1.0,"/v1/completions","m",true,"anna"]\n' + line("req_2") + bytes(99))
    mover.move()
    assert store.entries["req_1"] == Entry("req_1", 1.0, "/v1/completions", "m", True, "anna")
    assert store.entries["req_2"] == entry("req_2")
    assert caplog.text == ""


def test_journal_moved_twice_is_in_the_database_once(tmp_path: Path) -> None:
    """As if the process had died between the writing and the deleting."""
    database = tmp_path / "store.sqlite3"
    with closing(Store(database)) as store:
        for _ in range(2):
            (tmp_path / "77-dead-1.journal").write_bytes(line("req_1"))
            Mover(tmp_path, store.write).move()
    assert ids(database) == ["req_1"]


def test_store_that_was_locked_is_written_to_later(tmp_path: Path) -> None:
    database = tmp_path / "store.sqlite3"
    with closing(Store(database)) as store, closing(sqlite.connect(database)) as holder:
        store.write([msgspec.structs.astuple(entry("req_1"))])
        assert store._connection is not None
        store._connection.execute("PRAGMA busy_timeout=10")
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError):
            store.write([msgspec.structs.astuple(entry("req_2"))])
        holder.execute("COMMIT")
        store.write([msgspec.structs.astuple(entry("req_2"))])
    assert ids(database) == ["req_1", "req_2"]


def test_store_that_another_file_has_replaced_is_opened_anew(tmp_path: Path) -> None:
    database = tmp_path / "store.sqlite3"
    with closing(Store(database)) as store:
        store.write([msgspec.structs.astuple(entry("req_1"))])
        for file in tmp_path.iterdir():
            file.unlink()
        store.write([msgspec.structs.astuple(entry("req_2"))])
    assert ids(database) == ["req_2"]


def ids(database: Path) -> list[str]:
    with closing(sqlite.connect(database)) as connection:
        return sorted(read.id for read in sqlite_ledger.read_entries(connection, last=9))


def test_large_file_is_read_in_parts_and_whole(tmp_path: Path, store: FakeStore, mover: Mover) -> None:
    names = [f"req_{number}" for number in range(3000)]
    lines = [line(name) for name in names]
    lines[1500] = b"not an entry\n"
    (tmp_path / "1-ended.journal").write_bytes(b"".join(lines))
    mover.move()
    assert list(store.entries) == [name for name in names if name != "req_1500"]


def test_rows_are_written_with_rests_between_them(tmp_path: Path) -> None:
    rested: list[int] = []
    with closing(Store(tmp_path / "store.sqlite3")) as store:
        store.write([msgspec.structs.astuple(entry(f"req_{number}")) for number in range(250)], lambda: rested.append(1))
    assert len(rested) >= 2
    with closing(sqlite.connect(tmp_path / "store.sqlite3")) as connection:
        assert len(sqlite_ledger.read_entries(connection, last=1000)) == 250
