"""The ledger's mover: takes journal files into the database and deletes them. A process of its own, started by the gateway:

    python -m gateway.adapters.ledger_mover STATE_DIR OWNER     OWNER: the gateway's Journal.owner

In the gateway, moving would hold Python's lock for milliseconds while calls wait for it. It runs at a lower priority, and as long
as it keeps up it works for less than a millisecond at a time: where cores are few, calls come first. What dead processes left is
moved too; entries are keyed by call, so moving one twice changes nothing.

It ends when its standard input does: the gateway holds the other end and writes nothing, so that is the gateway's end, whatever
kind of end it was. What is left then is moved before. Signals that reach the gateway's whole group are not meant for it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated

import msgspec

from gateway.adapters import sqlite, sqlite_ledger
from gateway.adapters.journal import journal_folder
from gateway.entry import Entry

log = logging.getLogger(__name__)

Rest = Callable[[], None]

_LOOK_S = 0.2
_NICE = 5
_REST_S = 0.003  # after a statement's 100 rows, which take a quarter of that: 25,000 rows a second are possible all the same
_READ_AT_ONCE = 64 * 1024  # bytes: some 300 entries, half a millisecond
_BEHIND = 3  # files that wait say that it does not keep up
_INT64 = msgspec.Meta(ge=-(2**63), le=2**63 - 1)  # SQLite's integers


class Mover:
    """Moves journal files. `write` stores rows for good, all or none, with rests; it may raise sqlite3.Error or StoreUnusable."""

    def __init__(self, folder: Path, write: Callable[[Sequence[sqlite_ledger.Row], Rest], None]) -> None:
        self._folder = folder
        self._write = write
        self._rests = False
        self._troubles: set[str] = set()

    def move(self, ended: str | None = None) -> None:
        """Move all that was recorded by owners who write no more. For the files of `ended`, who is about to let go, it waits."""
        troubles: set[str] = set()
        paths = sorted(self._folder.glob("*.journal"))
        self._rests = ended is None and len(paths) < _BEHIND
        for path in paths:
            wait = ended is not None and path.name.startswith(f"{ended}-")
            try:
                self._move_file(path, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (FileNotFoundError, BlockingIOError):
                pass  # another mover was faster; or somebody is writing it
            except OSError as problem:
                troubles.add(f"{path} cannot be moved into the ledger ({problem}).")
            except (sqlite3.Error, sqlite.StoreUnusable) as problem:
                troubles.add(f"The ledger's store does not take entries ({problem}); they stay in {self._folder} until it does.")
                break
        for new in sorted(troubles - self._troubles):
            log.warning("%s", new)
        self._troubles = troubles

    def _move_file(self, path: Path, lock: int) -> None:
        with path.open("rb") as file:
            fcntl.flock(file, lock)
            if rows := read(file.read(), path, self._rest):
                self._write(rows, self._rest)
            path.unlink()

    def _rest(self) -> None:
        if self._rests:
            time.sleep(_REST_S)


class Store:
    """The database, opened when it is needed first, and anew after a failure or when another file is in its place."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None

    def write(self, rows: Sequence[sqlite_ledger.Row], rest: Rest = lambda: None) -> None:
        """Raises sqlite3.Error or StoreUnusable."""
        if self._connection is not None and self._identity() != self._opened:
            self.close()
        if self._connection is None:
            self._connection = sqlite.connect(self._path)
            self._opened = self._identity()
        try:
            sqlite_ledger.write_entries(self._connection, rows, rest)
        except sqlite3.Error:
            self.close()
            raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino


def read(data: bytes, path: Path, rest: Rest = lambda: None) -> list[sqlite_ledger.Row]:
    """The entries of a journal. Its last line may be torn, if the machine stopped while it was written."""
    data = data.rstrip(b"\0")  # what was not written when the machine stopped may be zero
    rows: list[sqlite_ledger.Row] = []
    begin = 0
    while begin < len(data):
        end = data.find(b"\n", begin + _READ_AT_ONCE) + 1 or len(data)
        rows += _read_lines(data[begin:end], path)
        begin = end
        rest()
    return rows


def _read_lines(data: bytes, path: Path) -> list[sqlite_ledger.Row]:
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        return _rows.decode_lines(data)
    rows = []
    for line in data.splitlines():
        try:
            rows.append(_rows.decode(msgspec.json.encode(_entries.decode(line))))  # of an older version, it may be shorter
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            log.warning("A line of %s cannot be read and is skipped: %s", path, problem)
    return rows


def _row_decoder() -> msgspec.json.Decoder[sqlite_ledger.Row]:
    """Of an entry's line as it is, without making an Entry of it: its fields in their order."""
    kinds = [field.type for field in msgspec.structs.fields(Entry)]
    return msgspec.json.Decoder(tuple[*(Annotated[int, _INT64] if kind is int else kind for kind in kinds)])  # type: ignore[misc]


_entries = msgspec.json.Decoder(Entry)
_rows = _row_decoder()


def main(state_dir: Path, owner: str) -> None:
    """Until the gateway has ended."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    os.nice(_NICE)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    with closing(Store(sqlite.store_path(state_dir))) as store:
        mover = Mover(journal_folder(state_dir), store.write)
        while not select.select([sys.stdin], [], [], _LOOK_S)[0]:
            mover.move()
        mover.move(ended=owner)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
