"""The ledger's mover: takes journal files into the database and deletes them. A process of its own, started by the gateway:

    python -m gateway.adapters.ledger_mover < what to move where (`Orders`), as one line of JSON

In the gateway, moving would hold Python's lock for milliseconds while calls wait for it. It runs at a lower priority, and as long
as it keeps up it works for less than a millisecond at a time: where cores are few, calls come first. What dead processes left is
moved too; entries are keyed by call, so moving one twice changes nothing.

It ends when its standard input does: the gateway holds the other end, so that is the gateway's end, whatever kind of end it was.
What is left then is moved before. Signals that reach the gateway's whole group are not meant for it. The orders come that way
too, and not as arguments, since the database's address may hold a password.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import select
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from gateway.adapters import sqlite
from gateway.adapters.event_sender import EventSender, EventTarget, http_post
from gateway.adapters.journal import journal_folder
from gateway.adapters.journal_reader import Damage, Harm, quarantine, read
from gateway.adapters.schema import StoreUnusable
from gateway.adapters.sqlite_ledger import SqliteLedger
from gateway.ledger_query import LedgerStore, Row, RowRefused

log = logging.getLogger(__name__)

_LOOK_S = 0.2
_LOOK_AGAIN_S = 2.0  # while the store takes nothing
_NICE = 5
_REST_S = 0.003  # after a statement's 100 rows, which take a quarter of that: 25,000 rows a second are possible all the same
_BEHIND = 3  # files that wait say that it does not keep up
_ABANDONED_S = 60.0  # a file that has not got its name by then never will


class Orders(msgspec.Struct, frozen=True):
    """`owner` is the gateway's Journal.owner. Without a `store_url` the store is the SQLite file in `state_dir`."""

    state_dir: str
    owner: str
    store_url: str | None = None
    log_level: str = "warning"
    events: EventTarget | None = None


class Mover:
    """Moves journal files into `store`. `damaged` counts the lines that were not what was written, by what became of them."""

    def __init__(self, folder: Path, store: LedgerStore) -> None:
        self.damaged: Counter[Harm] = Counter()
        self.is_held_up = False  # the store takes nothing
        self._folder = folder
        self._store = store
        self._rests = False
        self._troubles: set[str] = set()

    def move(self, ended: str | None = None) -> None:
        """Move all that was recorded by owners who write no more. For the files of `ended`, who is about to let go, it waits."""
        troubles: set[str] = set()
        paths = sorted(self._folder.glob("*.journal"))
        self._rests = ended is None and len(paths) < _BEHIND
        self.is_held_up = False
        for path in paths:
            wait = ended is not None and path.name.startswith(f"{ended}-")
            try:
                self._move_file(path, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (FileNotFoundError, BlockingIOError):
                pass  # another mover was faster; or somebody is writing it
            except OSError as problem:
                troubles.add(f"{path} cannot be moved into the ledger ({problem}).")
            except StoreUnusable as problem:
                self.is_held_up = True
                troubles.add(f"The ledger's store does not take entries ({problem}); they stay in {self._folder} until it does.")
                break
        for new in sorted(troubles - self._troubles):
            log.warning("%s", new)
        self._troubles = troubles

    def tidy(self, now: float) -> None:
        """Remove files whose makers were killed before they gave them their names: there is nothing in them."""
        for path in self._folder.glob("*.new"):
            with contextlib.suppress(OSError):
                found = path.stat()
                if not found.st_size and now - found.st_mtime > _ABANDONED_S:
                    path.unlink()

    def _move_file(self, path: Path, lock: int) -> None:
        with path.open("rb") as file:
            fcntl.flock(file, lock)
            if not _is_still(file.fileno(), path):
                return
            reading = read(file.read(), self._rest)
            damages = [*reading.damages, *self._write(reading.rows)]
            if damages:
                self._report(path, damages)
            path.unlink()
            log.debug("%d entries of %s are in the ledger.", len(reading.rows), path.name)

    def _write(self, rows: Sequence[Row]) -> list[Damage]:
        """Returns what the store refused."""
        if not rows:
            return []
        try:
            self._store.write(rows, self._rest)
        except RowRefused as problem:
            if len(rows) == 1:
                log.error("The ledger's store refuses the entry of call %s (%s).", rows[0][0], problem)
                return [Damage(Harm.REFUSED, msgspec.json.encode(rows[0]))]
            half = len(rows) // 2
            return self._write(rows[:half]) + self._write(rows[half:])
        return []

    def _report(self, path: Path, damages: Sequence[Damage]) -> None:
        kept = quarantine(self._folder / "damaged", path.stem, damages)
        counts = Counter(damage.harm for damage in damages)
        self.damaged += counts
        said = ", ".join(f"{count} {harm.value}" for harm, count in counts.items())
        log.warning("%s has lines that are not as they were written: %s. They are in %s.", path.name, said, kept)

    def _rest(self) -> None:
        if self._rests:
            time.sleep(_REST_S)


def _is_still(descriptor: int, path: Path) -> bool:
    """Whether the file that was locked is still there: another mover may have moved it while this one waited."""
    try:
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def open_ledger(orders: Orders) -> LedgerStore:
    with_events = orders.events is not None
    if orders.store_url is None:
        return SqliteLedger(sqlite.store_path(Path(orders.state_dir)), with_events=with_events, for_good=True)
    from gateway.adapters.postgres_ledger import PostgresLedger  # asyncpg takes a while, and few need it

    return PostgresLedger(orders.store_url, with_events=with_events)


@contextmanager
def _sending(orders: Orders) -> Iterator[None]:
    """Beside the moving, with a connection of its own; what it cannot deliver by the end waits for the next start."""
    if orders.events is None:
        yield
        return
    sender = EventSender(open_ledger(orders), orders.events, http_post(orders.events))
    stopped = threading.Event()
    threading.Thread(target=sender.run, args=(stopped,), daemon=True).start()
    try:
        yield
    finally:
        stopped.set()


def main(orders: Orders) -> None:
    """Until the gateway has ended."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    os.nice(_NICE)
    logging.basicConfig(level=orders.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    with closing(open_ledger(orders)) as store, _sending(orders):
        mover, look_s = Mover(journal_folder(Path(orders.state_dir)), store), _LOOK_S
        while not select.select([sys.stdin], [], [], look_s)[0]:
            mover.move()
            mover.tidy(time.time())
            look_s = min(2 * look_s, _LOOK_AGAIN_S) if mover.is_held_up else _LOOK_S
        mover.move(ended=orders.owner)


if __name__ == "__main__":
    main(msgspec.json.decode(sys.stdin.buffer.readline(), type=Orders))
