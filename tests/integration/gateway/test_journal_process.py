"""A gateway that is killed: what was recorded is in the ledger after the next start."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from gateway.adapters import sqlite
from gateway.adapters.journal import JournaledLedger
from gateway.entry import Entry

ROOT = Path(__file__).parents[3]
RECORDER = """
import sys, time
from pathlib import Path
from gateway.adapters.journal import JournaledLedger
from gateway.entry import Entry
with JournaledLedger(Path(sys.argv[1]), print, retry_on=(), move_every_s=3600) as ledger:
    for number in range(1000):
        ledger.record(Entry(f"req_{number}", 1.0, "/v1/completions", "m", False))
        print(number, flush=True)
        time.sleep(0.001)
"""


def write(database: Path, entries: Sequence[Entry]) -> None:
    with closing(sqlite.connect(database)) as connection:
        sqlite.write_entries(connection, entries)


def ids(database: Path) -> set[str]:
    with closing(sqlite.connect(database)) as connection:
        return {entry.id for entry in sqlite.read_entries(connection, last=10_000)}


def test_entries_of_a_killed_process_are_moved_at_the_next_start(tmp_path: Path) -> None:
    folder, database = tmp_path / "journal", tmp_path / "store.sqlite3"
    recorder = subprocess.Popen([sys.executable, "-c", RECORDER, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with recorder, JournaledLedger(folder, partial(write, database), retry_on=(sqlite3.Error,), move_every_s=3600) as ledger:
        assert recorder.stdout is not None
        said = [recorder.stdout.readline() for _ in range(20)]
        ledger.move()
        assert ids(database) == set(), "the living process's journal is left alone"
        recorder.send_signal(signal.SIGKILL)
        said += recorder.stdout.readlines()
        recorder.wait()
        ledger.move()
        recorded = {f"req_{line.strip()}" for line in said if line.endswith("\n")}
        assert recorded <= ids(database)
        assert len(ids(database)) <= len(recorded) + 1, "the last may have been recorded but not said"


def test_locked_database_holds_up_no_call_and_gets_its_entries_later(tmp_path: Path) -> None:
    folder, database = tmp_path / "journal", tmp_path / "store.sqlite3"

    def write_impatiently(entries: Sequence[Entry]) -> None:
        with closing(sqlite.connect(database)) as connection:
            connection.execute("PRAGMA busy_timeout=10")
            sqlite.write_entries(connection, entries)

    with (
        closing(sqlite.connect(database)) as holder,
        JournaledLedger(folder, write_impatiently, retry_on=(sqlite3.Error,), move_every_s=0.01) as ledger,
    ):
        holder.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        for number in range(50):
            ledger.record(Entry(f"req_{number}", 1.0, "/v1/completions", "m", False))
        assert time.monotonic() - began < 1
        time.sleep(0.1)
        assert ids(database) == set()
        holder.execute("COMMIT")
    assert len(ids(database)) == 50
