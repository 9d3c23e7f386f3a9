"""Gateways that write entries as fast as they can, and their movers, are killed at random moments; nothing is lost or doubled.

LEDGER_KILLS=1000 for the long run (`make kill-ledger`).
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import psutil
import pytest

from gateway.adapters.journal import journal_folder
from gateway.adapters.ledger_mover import Orders, open_ledger
from gateway.ledger_query import LedgerQuery, LedgerStore

ROOT = Path(__file__).parents[3]
KILLS = int(os.environ.get("LEDGER_KILLS", "40"))
_KILLS_A_STORE = 100  # or the store of a long run becomes large
_SETTLE_S = 30
# Bursts at full speed, and between them a moment for the others on the machine. What `record` returned for goes into a pipe in
# one write of less than PIPE_BUF: all of it or nothing.
WRITER = """
import asyncio, os, sys
from gateway.adapters.journal import Journal, journal_folder
from gateway.adapters.ledger_mover import Orders
from gateway.adapters.mover_process import MoverProcess
from gateway.entry import Entry
from pathlib import Path

async def main(state_dir, run, url):
    journal = Journal(journal_folder(Path(state_dir)))
    async with MoverProcess(journal, Orders(state_dir, journal.owner, url)):
        with journal:
            number = 0
            while True:
                for _ in range(100):
                    journal.record(Entry(f"{run}_{number}", 1.0, "/v1/completions", "m", False, "school", cost_ukrw=1))
                    os.write(1, b"%d\\n" % number)
                    number += 1
                await asyncio.sleep(0.005)

asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3] or None))
"""


@dataclass
class Writer:
    """One process, and what it said that it recorded."""

    run: int
    process: subprocess.Popen[bytes]
    said: Path

    def mover(self) -> psutil.Process | None:
        try:
            children = psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return None
        return children[0] if children else None

    def ids(self) -> set[str]:
        """Of the last one the writer may have been killed between recording and saying so."""
        return {f"{self.run}_{number.decode()}" for number in self.said.read_bytes().split(b"\n")[:-1]}

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Killing:
    """Kills at random moments until told; every process was started by it."""

    state_dir: Path
    url: str | None
    chance: random.Random
    kills: int = 0
    of_movers: int = 0
    writers: list[Writer] = field(default_factory=list)
    movers: list[psutil.Process] = field(default_factory=list)

    def start(self) -> Writer:
        run = len(self.writers)
        said = self.state_dir / f"said_{run}"
        with said.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", WRITER, str(self.state_dir), str(run), self.url or ""],
                stdout=file,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
        self.writers.append(Writer(run, process, said))
        return self.writers[-1]

    def one(self) -> None:
        """A writer, which may be killed while it starts; in its life its mover is killed too, or not, before it or after."""
        writer = self.start()
        try:
            time.sleep(self.chance.uniform(0.0, 1.2))
            mover = writer.mover()
            if mover is not None:
                self.movers.append(mover)
                if self.chance.random() < 0.6:
                    self._kill(mover)
                    time.sleep(self.chance.choice((0.0, self.chance.uniform(0.0, 0.3))))
        finally:
            writer.kill()
            self.kills += 1

    def _kill(self, mover: psutil.Process) -> None:
        try:
            mover.kill()
        except psutil.NoSuchProcess:
            return
        self.kills += 1
        self.of_movers += 1

    def settle(self, store: LedgerStore) -> None:
        """A mover as the next start brings it, whose gateway then ends in order."""
        command = [sys.executable, "-P", "-m", "gateway.adapters.ledger_mover"]
        orders = msgspec.json.encode(Orders(str(self.state_dir), "nobody", self.url)) + b"\n"
        until = time.monotonic() + _SETTLE_S
        while list(journal_folder(self.state_dir).glob("*.journal")):
            assert time.monotonic() < until
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            subprocess.run(command, input=orders, env=environment, check=True, timeout=_SETTLE_S)
        _, left = psutil.wait_procs(self.movers, timeout=_SETTLE_S)
        assert not left, "movers end with their gateways"

    def check(self, store: LedgerStore) -> tuple[int, int]:
        """How many were acknowledged, and how many are in the store. Each once, and at most one for a writer unsaid."""
        said = set[str]().union(*(writer.ids() for writer in self.writers))
        found = [entry.id for entry in store.entries(LedgerQuery(), 100_000_000)]
        assert said <= set(found), f"lost: {sorted(said - set(found))[:5]}"
        assert len(found) == len(set(found)), "counted twice"
        assert len(found) <= len(said) + len(self.writers)
        (total,) = store.sums(LedgerQuery(), ())
        assert (total.calls, total.cost_ukrw) == (len(found), len(found))
        return len(said), len(found)


@contextmanager
def killing(state_dir: Path, url: str | None, seed: int) -> Iterator[Killing]:
    state_dir.mkdir()
    made = Killing(state_dir, url, random.Random(seed))  # noqa: S311 (moments, not secrets)
    try:
        yield made
    finally:
        for writer in made.writers:
            writer.kill()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_killed_at_random_moments_every_acknowledged_entry_is_in_the_store_once(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted, kills, of_movers, said, found = KILLS // 2, 0, 0, 0, 0
    while kills < wanted:
        url = None if kind == "sqlite" else request.getfixturevalue("postgres").new_database()
        folder = tmp_path / str(kills)
        with killing(folder, url, seed=kills) as run, closing(open_ledger(Orders(str(folder), "test", url))) as store:
            while run.kills < min(_KILLS_A_STORE, wanted - kills):
                run.one()
            run.settle(store)
            more_said, more_found = run.check(store)
        kills, of_movers, said, found = kills + run.kills, of_movers + run.of_movers, said + more_said, found + more_found
    assert said > 10 * wanted
    with capsys.disabled():
        print(f"\n{kind}: {kills} kills, {of_movers} of them movers; {said} entries acknowledged, {found} in the store")  # noqa: T201
