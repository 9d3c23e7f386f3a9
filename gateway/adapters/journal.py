"""The ledger's journal, where an entry is kept first: one line in a file, written before `record` returns.

An entry thus survives the end of the process, and a slow or locked database holds up no call. Every so often the file is let go
(`rotate`), and the mover, a process of its own (`ledger_mover`), takes it into the database. Against power loss less is promised:
the file is not synced for every entry.

A write and not a copy into mapped memory: fresh pages of a file cost more than the system call, and a full disk is an OSError.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from pathlib import Path
from types import TracebackType

import msgspec

from gateway.entry import Entry


def journal_folder(state_dir: Path) -> Path:
    return state_dir / "journal"


class _Segment:
    """One journal file. Its owner holds a lock on it, by which others know that it is still written to.

    It gets its name only once it is locked: under that name nobody ever finds it free before its owner is done.
    """

    def __init__(self, stem: str) -> None:
        self._path = f"{stem}.journal"
        self.size = 0
        unlocked = f"{stem}.new"
        self._file = os.open(unlocked, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            os.rename(unlocked, self._path)
        except OSError:
            os.close(self._file)
            raise

    def append(self, line: bytes) -> None:
        """All of it or, with an OSError, nothing."""
        written = os.write(self._file, line)
        if written < len(line):
            os.ftruncate(self._file, self.size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
        self.size += written

    def close(self) -> None:
        if not self.size:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
        os.close(self._file)


class Journal:
    """Use as `with`. `owner` begins the names of its files, and of no other journal's."""

    def __init__(self, folder: Path) -> None:
        self.owner = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._folder = folder
        self._segments = 0
        self._segment: _Segment | None = None

    def __enter__(self) -> Journal:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._segment = self._next()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def record(self, entry: Entry) -> None:
        """Raises OSError if it could not be kept."""
        if self._segment is None:
            raise RuntimeError("record() outside of the with block")
        self._segment.append(msgspec.json.encode(entry) + b"\n")

    def rotate(self) -> None:
        """Let go of what was recorded so far. Raises OSError where no new file can be made, and stays with the old one."""
        written = self._segment
        if written is not None and written.size:
            self._segment = self._next()
            written.close()

    def _next(self) -> _Segment:
        self._segments += 1
        return _Segment(f"{self._folder}/{self.owner}-{self._segments}")
