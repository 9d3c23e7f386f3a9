"""The ledger's way to its store: a local journal first, the database behind it.

`record` appends one line to a file and returns; a thread moves whole files into the database and deletes them. An entry thus
survives the end of the process from the moment `record` returns, and a slow or locked database holds up no call. What a dead
process left is moved at the next start; entries are keyed by call, so that moving one twice changes nothing.
Against power loss it promises less: the file is not synced for every entry.
The thread shares Python's lock with the calls, so what it does for one entry is kept small and in C.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import mmap
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import msgspec

from gateway.entry import Entry

log = logging.getLogger(__name__)
_entries = msgspec.json.Decoder(Entry)


class _Segment:
    """One journal file. Its owner holds a lock on it, by which others know that it is still written to.

    It gets its name only once it is locked: under that name nobody ever finds it free before its owner is done. It is mapped into
    memory, where a line costs a copy and no system call; its blocks are reserved before, so that a full disk is an OSError here
    and not the end of the process later.
    """

    _BYTES = 4 * 1024 * 1024

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{os.getpid()}-{secrets.token_hex(4)}.journal"
        unlocked = self.path.with_suffix(".new")
        self._file = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        os.posix_fallocate(self._file, 0, self._BYTES)
        self._memory = mmap.mmap(self._file, self._BYTES)
        self._end = 0
        unlocked.rename(self.path)

    @property
    def empty(self) -> bool:
        return not self._end

    def append(self, line: bytes) -> bool:
        """False if there is no room for it."""
        end = self._end + len(line)
        if end > self._BYTES:
            return False
        self._memory[self._end : end] = line
        self._end = end
        return True

    def close(self) -> None:
        self._memory.close()
        os.ftruncate(self._file, self._end)
        os.close(self._file)


class JournaledLedger:
    """Use as `with`. `write` stores entries for good, all or none, and may raise OSError or one of `retry_on`."""

    def __init__(
        self,
        folder: Path,
        write: Callable[[Sequence[Entry]], None],
        *,
        retry_on: tuple[type[Exception], ...],
        move_every_s: float = 0.2,
    ) -> None:
        self._folder = folder
        self._write = write
        self._retry_on: tuple[type[Exception], ...] = (OSError, *retry_on)
        self._move_every_s = move_every_s
        self._lock = threading.Lock()
        self._segment: _Segment | None = None
        self._stop = threading.Event()
        self._mover = threading.Thread(target=self._move_until_stopped, name="ledger", daemon=True)

    def __enter__(self) -> JournaledLedger:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._segment = _Segment(self._folder)
        self._mover.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._mover.join()
        self.move()
        with self._lock:
            if self._segment is not None:
                self._segment.close()
                if self._segment.empty:
                    self._segment.path.unlink(missing_ok=True)
                self._segment = None

    def record(self, entry: Entry) -> None:
        line = msgspec.json.encode(entry) + b"\n"
        with self._lock:
            if self._segment is None:
                raise RuntimeError("record() outside of the with block")
            if not self._segment.append(line):
                self._segment.close()
                self._segment = _Segment(self._folder)
                self._segment.append(line)

    def move(self) -> None:
        """Move everything recorded so far, by anybody who writes no more, into the store."""
        with self._lock:
            if self._segment is not None and not self._segment.empty:
                self._segment.close()
                self._segment = _Segment(self._folder)
            own = self._segment.path if self._segment else None
        for path in sorted(self._folder.glob("*.journal")):
            if path != own:
                self._move_file(path)

    def _move_file(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # somebody is writing it
            try:
                self._write(_read(file.read(), path))
            except self._retry_on as problem:
                log.warning("The ledger's store does not take entries (%s); they stay in %s until it does.", problem, path)
                return
            path.unlink()

    def _move_until_stopped(self) -> None:
        while not self._stop.wait(self._move_every_s):
            self.move()


def _read(data: bytes, path: Path) -> list[Entry]:
    """The entries of a journal. Its last line may be torn, if the machine stopped while it was written."""
    entries = []
    for line in data.rstrip(b"\0").splitlines():  # what a process did not live to write is still zero
        try:
            entries.append(_entries.decode(line))
        except msgspec.DecodeError as problem:
            log.warning("A line of %s cannot be read and is skipped: %s", path, problem)
    return entries
