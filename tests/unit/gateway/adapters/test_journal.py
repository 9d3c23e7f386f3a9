"""An entry is in a file when `record` returns; files that are let go are whole, and others know which those are."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import msgspec
import pytest

from gateway.adapters.journal import Journal
from gateway.entry import Entry


def entry(name: str) -> Entry:
    return Entry(id=name, started_at=1.0, endpoint="/v1/completions", model="모델", stream=False, outcome="completed")


def names(file: Path) -> list[str]:
    return [kept.id for kept in msgspec.json.Decoder(Entry).decode_lines(file.read_bytes())]


def is_written_to(file: Path) -> bool:
    with file.open("rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_entry_is_on_disk_when_record_returns(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.record(entry("req_1"))
        (file,) = tmp_path.iterdir()
        assert file.name.startswith(f"{journal.owner}-")
        assert msgspec.json.decode(file.read_bytes(), type=Entry) == entry("req_1")
        assert is_written_to(file)
        assert file.stat().st_mode & 0o077 == 0, "for our eyes only"


def test_rotating_lets_go_of_what_was_recorded(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.record(entry("req_1"))
        journal.record(entry("req_2"))
        journal.rotate()
        journal.record(entry("req_3"))
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


def test_full_disk_is_an_error_and_costs_no_other_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk may take a part of a line."""
    write, full = os.write, [False, True, False]
    monkeypatch.setattr(os, "write", lambda file, line: write(file, line[:9] if full.pop(0) else line))
    with Journal(tmp_path) as journal:
        journal.record(entry("req_1"))
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            journal.record(entry("req_2"))
        journal.record(entry("req_3"))
        (file,) = tmp_path.iterdir()
        assert names(file) == ["req_1", "req_3"]


def test_where_no_new_file_can_be_made_the_old_one_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    with Journal(folder) as journal:
        journal.record(entry("req_1"))
        folder.rename(tmp_path / "elsewhere")
        with pytest.raises(FileNotFoundError):
            journal.rotate()
        (tmp_path / "elsewhere").rename(folder)
        journal.record(entry("req_2"))
        (file,) = folder.iterdir()
        assert names(file) == ["req_1", "req_2"]


def test_record_outside_of_the_block_fails_loudly(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(RuntimeError):
        journal.record(entry("req_1"))
    with journal:
        pass
    with pytest.raises(RuntimeError):
        journal.record(entry("req_2"))
