"""An entry is in a file when `record` returns; files that are let go are whole and synced, and others know which those are."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from pathlib import Path

import pytest

from gateway.adapters.journal import Journal
from gateway.adapters.journal_reader import read
from tests.entries import entry, rows


def names(file: Path) -> list[str]:
    reading = read(file.read_bytes())
    assert reading.damages == []
    return [str(row[0]) for row in reading.rows]


def is_written_to(file: Path) -> bool:
    with file.open("rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_entry_is_on_disk_when_record_returns(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.record(entry(1))
        (file,) = tmp_path.iterdir()
        assert file.name.startswith(f"{journal.owner}-")
        assert read(file.read_bytes()).rows == rows([entry(1)])
        assert is_written_to(file)
        assert file.stat().st_mode & 0o077 == 0, "for our eyes only"


def test_rotating_lets_go_of_what_was_recorded(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.record(entry(1))
        journal.record(entry(2))
        journal.rotate()
        journal.record(entry(3))
        first, second = sorted(tmp_path.iterdir())
        assert (names(first), names(second)) == (["req_1", "req_2"], ["req_3"])
        assert (is_written_to(first), is_written_to(second)) == (False, True)
    assert not is_written_to(second)


def test_nothing_recorded_means_no_files(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        (before,) = tmp_path.iterdir()
        journal.rotate()
        assert list(tmp_path.iterdir()) == [before]
    assert list(tmp_path.iterdir()) == []


class FullDisk:
    """Takes the beginning of what is written, or all of it once there is room."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        self._write = os.write
        monkeypatch.setattr(os, "write", self)

    def __call__(self, file: int, line: bytes) -> int:
        return self._write(file, line[:9] if self.is_full else line)


def test_what_a_full_disk_does_not_take_waits_and_costs_no_other_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FullDisk(monkeypatch)
    with Journal(tmp_path) as journal:
        journal.record(entry(1))
        assert not journal.is_stuck()
        disk.is_full = True
        for number in (2, 3):
            journal.record(entry(number))
            journal.retry()
            assert journal.is_stuck()
        assert caplog.text.count(os.strerror(errno.ENOSPC)) == 1, "it is said once"
        (file,) = tmp_path.iterdir()
        assert names(file) == ["req_1"]
        disk.is_full = False
        journal.record(entry(4))
        assert journal.is_stuck(), "they keep their order"
        journal.retry()
        assert not journal.is_stuck()
        assert "the 3 entries that waited are kept" in caplog.text
        assert names(file) == ["req_1", "req_2", "req_3", "req_4"]


def test_room_that_comes_at_the_end_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(monkeypatch)
    with Journal(tmp_path) as journal:
        disk.is_full = True
        journal.record(entry(1))
        disk.is_full = False
    (file,) = tmp_path.iterdir()
    assert names(file) == ["req_1"]


def test_what_never_found_room_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FullDisk(monkeypatch)
    with Journal(tmp_path) as journal:
        disk.is_full = True
        journal.record(entry(1))
        journal.record(entry(2))
    lost = [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]
    assert ["req_1" in lost[0], "req_2" in lost[1], len(lost)] == [True, True, 2]


def test_file_is_synced_with_its_name_before_it_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def noting(kind: str) -> None:
        sync = getattr(os, kind)

        def note(file: int) -> None:
            synced.append(os.readlink(f"/proc/self/fd/{file}"))
            assert is_written_to(first), "nobody else may have it before"
            sync(file)

        monkeypatch.setattr(os, kind, note)

    with Journal(tmp_path) as journal:
        (first,) = tmp_path.iterdir()
        noting("fdatasync")
        noting("fsync")
        journal.record(entry(1))
        assert synced == [], "no call waits for the disk"
        written = journal.swap()
        assert written is not None
        journal.record(entry(2))
        written.settle()
        assert synced == [str(first), str(tmp_path)]
        assert not is_written_to(first)
        monkeypatch.undo()


def test_disk_that_fails_to_sync_is_said_and_the_file_is_let_go_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Journal(tmp_path) as journal:
        journal.record(entry(1))
        monkeypatch.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            journal.rotate()
        monkeypatch.undo()
        first, _ = sorted(tmp_path.iterdir())
        assert names(first) == ["req_1"]
        assert not is_written_to(first)


def test_where_no_new_file_can_be_made_the_old_one_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    with Journal(folder) as journal:
        journal.record(entry(1))
        folder.rename(tmp_path / "elsewhere")
        with pytest.raises(FileNotFoundError):
            journal.rotate()
        (tmp_path / "elsewhere").rename(folder)
        journal.record(entry(2))
        (file,) = folder.iterdir()
        assert names(file) == ["req_1", "req_2"]


def test_record_outside_of_the_block_fails_loudly(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(RuntimeError):
        journal.record(entry(1))
    with journal:
        pass
    with pytest.raises(RuntimeError):
        journal.record(entry(2))
