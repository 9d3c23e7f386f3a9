"""The ledger's journal, where an entry is kept first: one line in a file, written before `record` returns.

An entry thus survives the end of the process, and a slow or locked database holds up no call. Every so often the file is let go
(`swap`, then `settle`), and the mover, a process of its own (`ledger_mover`), takes it into the database. Before it is let go it
is synced: what a loss of power may take is what was recorded since the last time. A file that is written to is never synced,
so no call waits for the disk.

Where nothing can be written, as on a full disk, entries wait in memory, `is_stuck` says so, and no new calls are taken until all
of them are kept: what waits is thus bounded by the calls that were running. The answers of those are not spoiled.

A write and not a copy into mapped memory: fresh pages of a file cost more than the system call, and a full disk is an OSError.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import secrets
from pathlib import Path
from types import TracebackType

import msgspec

from gateway.adapters.journal_line import seal
from gateway.entry import Entry

log = logging.getLogger(__name__)


def journal_folder(state_dir: Path) -> Path:
    return state_dir / "journal"


class Segment:
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
            with contextlib.suppress(OSError):
                os.unlink(unlocked)
            raise

    def append(self, lines: bytes) -> None:
        """All of it or, with an OSError, nothing."""
        written = os.write(self._file, lines)
        if written < len(lines):
            os.ftruncate(self._file, self.size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
        self.size += written

    def settle(self) -> None:
        """To the disk, with its name, and then let go. May take as long as the disk does. Raises OSError, having let go."""
        try:
            if self.size:
                os.fdatasync(self._file)
                _sync_folder(os.path.dirname(self._path))
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path)
        finally:
            os.close(self._file)


class Journal:
    """Use as `with`. `owner` begins the names of its files, and of no other journal's."""

    def __init__(self, folder: Path) -> None:
        self.owner = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._folder = folder
        self._segments = 0
        self._segment: Segment | None = None
        self._waiting: list[bytes] = []

    def __enter__(self) -> Journal:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._segment = self._next()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.retry()
        for line in self._waiting:
            log.critical("An entry is not in the ledger, since its journal cannot be written: %s", line.decode().strip())
        segment, self._segment = self._segment, None
        if segment is not None:
            try:
                segment.settle()
            except OSError as problem:
                log.error("The end of the ledger's journal may not survive a loss of power (%s).", problem)

    def record(self, entry: Entry) -> None:
        """Where it cannot be written, it waits in memory, and the journal is stuck."""
        if self._segment is None:
            raise RuntimeError("record() outside of the with block")
        line = seal(msgspec.json.encode(entry))
        if self._waiting:
            self._waiting.append(line)
            return
        try:
            self._segment.append(line)
        except OSError as problem:
            self._waiting.append(line)
            log.error(
                "The ledger's journal in %s cannot be written (%s). Entries wait in memory, and no calls are taken until it can.",
                self._folder,
                problem,
            )

    def is_stuck(self) -> bool:
        return bool(self._waiting)

    def retry(self) -> None:
        """Write what waits, if that goes by now."""
        segment = self._segment
        if segment is not None and self._waiting:
            with contextlib.suppress(OSError):
                segment.append(b"".join(self._waiting))
                log.warning("The ledger's journal can be written again; the %d entries that waited are kept.", len(self._waiting))
                self._waiting.clear()

    def swap(self) -> Segment | None:
        """Begin a new file; returns the old one, to be settled, where it has something in it.

        Raises OSError where no new file can be made, and stays with the old one.
        """
        written = self._segment
        if written is None or not written.size:
            return None
        self._segment = self._next()
        return written

    def rotate(self) -> None:
        """Let go of what was recorded so far, with all the time that takes. Raises OSError."""
        written = self.swap()
        if written is not None:
            written.settle()

    def _next(self) -> Segment:
        self._segments += 1
        return Segment(f"{self._folder}/{self.owner}-{self._segments}")


def _sync_folder(path: str) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
