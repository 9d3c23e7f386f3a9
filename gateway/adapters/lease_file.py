"""A worker's figures in a file, so that they outlive it: what it was granted of each limit, and has spent.

The file is mapped into memory, so that writing a figure costs no system call; the system keeps it when the process is killed. Its
owner holds a lock on it: whoever finds a file whose lock is free has found a worker that is gone, and goes on from its figures.

A file holds up to `_MOST` records of one limit each: is it used, the window, what was granted and spent, the kind, the limit, and
the names of tenant and scope. It is as long as its first record that was never used is far, the rest is a hole.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.policy.meter import Kind

_RECORD = 384
_HEAD = 64
_MOST = 1 << 16
_USED, _FIGURES, _KIND, _LIMIT, _LENGTH = 0, 1, 4, 5, 6  # in numbers of eight bytes; the figures are three
_KINDS = list(Kind)
_SUFFIX = ".lease"


@dataclass(frozen=True, slots=True)
class Record:
    """What one worker had of one limit."""

    tenant: str
    scope_id: str
    kind: Kind
    limit: int
    window: int
    granted: int
    spent: int


def lease_folder(state_dir: Path) -> Path:
    return state_dir / "leases"


class LeaseFile:
    """Use as `with`. `owner` is the worker's name, which no other ever has."""

    def __init__(self, folder: Path) -> None:
        self.owner = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._folder = folder
        self._records = 0
        self._free: list[int] = []
        self._at: dict[tuple[str, Kind], int] = {}

    def __enter__(self) -> LeaseFile:
        self._folder.mkdir(parents=True, exist_ok=True)
        new = self._folder / f"{self.owner}.new"
        self._file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        os.ftruncate(self._file, _RECORD * _MOST)
        self._bytes = memoryview(mmap.mmap(self._file, _RECORD * _MOST))
        os.rename(new, self._folder / f"{self.owner}{_SUFFIX}")
        return self

    def __exit__(self, *_: object) -> None:
        """The file stays, for whoever goes on; it is free from here on."""
        fcntl.flock(self._file, fcntl.LOCK_UN)  # the mapping has a copy of the file, which closing this one does not close
        os.close(self._file)

    def record(self, tenant: str, scope_id: str, kind: Kind, limit: int) -> memoryview | None:
        """Where to write window, granted and spent. None where there is no room: those figures die with the process."""
        names = f"{tenant}\0{scope_id}".encode()
        if len(names) > _RECORD - _HEAD or (not self._free and self._records >= _MOST):
            return None
        if self._free:
            number = self._free.pop()
        else:
            number, self._records = self._records, self._records + 1
        at = number * _RECORD
        head = self._bytes[at : at + _HEAD].cast("q")
        head[_KIND], head[_LIMIT], head[_LENGTH] = _KINDS.index(kind), limit, len(names)
        self._bytes[at + _HEAD : at + _HEAD + len(names)] = names
        head[_FIGURES], head[_FIGURES + 1], head[_FIGURES + 2] = 0, 0, 0
        head[_USED] = 1
        self._at[scope_id, kind] = number
        return head[_FIGURES : _FIGURES + 3]

    def forget(self, scope_id: str, kind: Kind) -> None:
        number = self._at.pop((scope_id, kind), None)
        if number is not None:
            self._bytes[number * _RECORD : number * _RECORD + _HEAD].cast("q")[_USED] = 0
            self._free.append(number)

    def dead(self) -> Iterator[DeadLease]:
        """The files of workers that are gone, locked: nobody else goes on from them meanwhile."""
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            if path.stem != self.owner and (lease := _locked(path)) is not None:
                yield lease


class DeadLease:
    """The file of a worker that is gone. Either `drop` it, its figures being in another file, or `close` it for later."""

    def __init__(self, path: Path, file: int) -> None:
        self.owner = path.stem
        self._path = path
        self._file = file

    def records(self) -> list[Record]:
        content = memoryview(mmap.mmap(self._file, 0, prot=mmap.PROT_READ))
        found = []
        for at in range(0, len(content) - _RECORD + 1, _RECORD):
            head = content[at : at + _HEAD].cast("q")
            if not head[_LENGTH]:
                break  # the first that was never used
            if head[_USED]:
                tenant, _, scope_id = bytes(content[at + _HEAD : at + _HEAD + head[_LENGTH]]).decode().partition("\0")
                found.append(Record(tenant, scope_id, _KINDS[head[_KIND]], head[_LIMIT], *head[_FIGURES : _FIGURES + 3]))
        return found

    def drop(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        self.close()

    def close(self) -> None:
        os.close(self._file)


def _locked(path: Path) -> DeadLease | None:
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file).st_nlink:  # else another has dropped it between the two
            return DeadLease(path, file)
    except BlockingIOError:
        pass
    os.close(file)
    return None
