"""Entries reach their store exactly once, however often it fails."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from gateway.adapters.journal import Journal
from gateway.adapters.journal_line import seal
from gateway.adapters.journal_reader import Harm, quarantined
from gateway.adapters.ledger_mover import Mover
from gateway.adapters.schema import StoreUnusable
from gateway.adapters.sqlite_ledger import SqliteLedger
from gateway.entry import Entry
from gateway.ledger_query import LedgerQuery, Rest, Row, RowRefused
from tests.entries import entry, rows


def line(number: int) -> bytes:
    return seal(msgspec.json.encode(entry(number)))


class FakeLedger(SqliteLedger):
    """Takes entries, or fails as told; `entries` are those it took."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self.taken: dict[str, Entry] = {}
        self.fails_with: Exception | None = None
        self.refuses: set[str] = set()
        self.tries = 0

    def write(self, rows: Sequence[Row], rest: Rest = lambda: None) -> None:
        self.tries += 1
        if self.fails_with is not None:
            raise self.fails_with
        if self.refuses & {str(row[0]) for row in rows}:
            raise RowRefused("no such thing")
        self.taken.update({str(row[0]): msgspec.convert(row, Entry) for row in rows})


@pytest.fixture
def store() -> FakeLedger:
    return FakeLedger()


@pytest.fixture
def mover(tmp_path: Path, store: FakeLedger) -> Mover:
    return Mover(tmp_path, store)


def test_moved_entries_are_in_the_store_and_no_longer_in_the_folder(tmp_path: Path, store: FakeLedger, mover: Mover) -> None:
    with Journal(tmp_path) as journal:
        journal.record(entry(1))
        journal.rotate()
        mover.move()
        assert store.taken == {"req_1": entry(1)}
        journal.record(entry(2))
    mover.move()
    assert list(store.taken) == ["req_1", "req_2"]
    assert list(tmp_path.iterdir()) == []


def test_journal_that_somebody_writes_is_left_alone(tmp_path: Path, store: FakeLedger, mover: Mover) -> None:
    """Several gateways may share the folder."""
    with Journal(tmp_path) as journal:
        journal.record(entry(1))
        mover.move()
        mover.move(ended="77-another")
        assert store.tries == 0
        journal.record(entry(2))
    mover.move(ended=journal.owner)
    assert list(store.taken) == ["req_1", "req_2"]


def test_empty_journal_goes_and_nothing_is_written(tmp_path: Path, store: FakeLedger, mover: Mover) -> None:
    (tmp_path / "77-dead-1.journal").touch()
    mover.move()
    assert store.tries == 0
    assert list(tmp_path.iterdir()) == []


def test_entries_wait_while_the_store_fails_and_arrive_later(
    tmp_path: Path, store: FakeLedger, mover: Mover, caplog: pytest.LogCaptureFixture
) -> None:
    store.fails_with = StoreUnusable("not now")
    (tmp_path / "77-dead-1.journal").write_bytes(line(1))
    (tmp_path / "77-dead-2.journal").write_bytes(line(2))
    for tries in (1, 2, 3):
        mover.move()
        assert mover.is_held_up
        assert store.tries == tries, "a store that fails is asked once a round"
    assert caplog.text.count("does not take entries") == 1, "it is said once"
    store.fails_with = None
    mover.move()
    assert not mover.is_held_up
    assert sorted(store.taken) == ["req_1", "req_2"]
    assert list(tmp_path.iterdir()) == []


def test_entry_that_the_store_refuses_holds_up_no_other_and_is_put_aside(
    tmp_path: Path, store: FakeLedger, mover: Mover, caplog: pytest.LogCaptureFixture
) -> None:
    store.refuses = {"req_3", "req_8"}
    (tmp_path / "77-dead-1.journal").write_bytes(b"".join(map(line, range(10))))
    mover.move()
    assert list(store.taken) == [f"req_{number}" for number in range(10) if number not in (3, 8)]
    assert [(harm, msgspec.json.decode(kept)[0]) for _, harm, kept in quarantined(tmp_path / "damaged")] == [
        (Harm.REFUSED, "req_3"),
        (Harm.REFUSED, "req_8"),
    ]
    assert "refuses the entry of call req_3" in caplog.text


def test_file_that_cannot_be_read_keeps_no_other_from_being_moved(
    tmp_path: Path, store: FakeLedger, mover: Mover, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "1-folder.journal").mkdir()
    (tmp_path / "77-dead-1.journal").write_bytes(line(1))
    mover.move()
    assert list(store.taken) == ["req_1"]
    assert "1-folder.journal" in caplog.text


def test_damage_is_counted_said_and_put_aside_and_the_others_are_kept(
    tmp_path: Path, store: FakeLedger, mover: Mover, caplog: pytest.LogCaptureFixture
) -> None:
    flipped = line(2).replace(b"req_2", b"req_3")
    (tmp_path / "77-dead-1.journal").write_bytes(line(1) + flipped + b"nonsense\n" + line(4) + line(5)[:40])
    mover.move()
    assert list(store.taken) == ["req_1", "req_2", "req_4"]
    assert mover.damaged == {Harm.MENDED: 1, Harm.UNREADABLE: 1, Harm.TORN: 1}
    assert "1 mended, 1 unreadable, 1 torn" in caplog.text
    assert [kept for _, _, kept in quarantined(tmp_path / "damaged")] == [flipped.strip(), b"nonsense", line(5)[:40]]
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


def test_damage_that_cannot_be_put_aside_keeps_its_file(
    tmp_path: Path, store: FakeLedger, mover: Mover, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "damaged").write_text("in the way")
    file = tmp_path / "77-dead-1.journal"
    file.write_bytes(line(1) + b"nonsense\n")
    mover.move()
    assert list(store.taken) == ["req_1"]
    assert file.exists()
    assert "cannot be moved" in caplog.text


def test_journal_moved_twice_is_in_the_database_once(tmp_path: Path) -> None:
    """As if the process had died between the writing and the deleting."""
    with closing(SqliteLedger(tmp_path / "store.sqlite3", with_events=True)) as store:
        for _ in range(2):
            (tmp_path / "77-dead-1.journal").write_bytes(line(1))
            Mover(tmp_path, store).move()
        assert [found.id for found in store.entries(LedgerQuery(), 9)] == ["req_1"]
        assert store.count_events() == 1


def test_rows_are_written_with_rests_between_them(tmp_path: Path) -> None:
    rested: list[int] = []
    with closing(SqliteLedger(tmp_path / "store.sqlite3")) as store:
        store.write(rows(map(entry, range(250))), lambda: rested.append(1))
        assert len(rested) >= 2
        assert len(store.entries(LedgerQuery(), 1000)) == 250


def test_what_a_dead_process_never_named_is_removed_and_what_may_yet_be_is_not(tmp_path: Path, mover: Mover) -> None:
    abandoned, young, full = (tmp_path / f"77-dead-{number}.new" for number in range(3))
    for path in (abandoned, young):
        path.touch()
    full.write_bytes(b"x")
    for path in (abandoned, full):
        os.utime(path, (1000.0, 1000.0))
    os.utime(young, (1050.0, 1050.0))
    mover.tidy(1100.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [young.name, full.name]
