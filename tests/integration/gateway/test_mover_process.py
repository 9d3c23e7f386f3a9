"""The ledger in real processes: whichever of them is killed, and however it ends, every entry is in the store once."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from gateway.adapters import mover_process, sqlite, sqlite_ledger
from gateway.adapters.journal import Journal, journal_folder
from gateway.adapters.ledger_mover import Orders
from gateway.adapters.mover_process import MoverProcess
from tests.entries import entry
from tests.gateway_process import GatewayProcess, gateway_process
from tests.integration.gateway.conftest import MODEL
from tests.integration.gateway.test_gateway import MESSAGES
from tests.loopback import LoopbackServer

ROOT = Path(__file__).parents[3]
RECORDER = """
import asyncio, itertools, signal, sys
from pathlib import Path
from gateway.adapters.journal import Journal, journal_folder
from gateway.adapters.ledger_mover import Orders
from gateway.adapters.mover_process import MoverProcess
from gateway.entry import Entry

async def main(state_dir, name):
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    journal = Journal(journal_folder(state_dir))
    async with MoverProcess(journal, Orders(str(state_dir), journal.owner)):
        with journal:
            for number in itertools.count():
                journal.record(Entry(f"{name}_{number}", 1.0, "/v1/completions", "m", False))
                print(f"{name}_{number}", flush=True)
                if stop.is_set():
                    break
                await asyncio.sleep(0.0005)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


def lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # gone since it was listed
        return False


@dataclass
class Recorder:
    """A process that records entries without end, and says which."""

    process: subprocess.Popen[str]
    state_dir: Path
    out: Path

    def mover(self) -> psutil.Process:
        found: list[psutil.Process] = []

        def there() -> bool:
            found[:] = [child for child in psutil.Process(self.process.pid).children() if lives(child)]
            return bool(found)

        until(there, 5)
        return found[0]

    def said(self) -> list[str]:
        return [line.strip() for line in self.out.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def ends(self, within_s: float) -> str:
        """Well; returns what it logged."""
        _, logged = self.process.communicate(timeout=within_s)
        assert self.process.returncode == 0, logged
        return logged


@contextmanager
def recorder(state_dir: Path, name: str = "req") -> Iterator[Recorder]:
    """That has recorded, and whose mover has moved."""
    out = state_dir / f"{name}.txt"
    with out.open("w") as file:
        command = [sys.executable, "-c", RECORDER, str(state_dir), name]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )
    try:
        until(lambda: f"{name}_0" in ids(state_dir), 20)
        yield Recorder(process, state_dir, out)
    finally:
        process.kill()
        process.communicate()


def ids(state_dir: Path) -> list[str]:
    with closing(sqlite.connect(sqlite.store_path(state_dir))) as connection:
        return [entry.id for entry in sqlite_ledger.read_entries(connection, last=100_000)]


def until(true: Callable[[], bool], within_s: float) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def has_all_once(state_dir: Path, said: list[str], *, unsaid: int = 0) -> bool:
    found = ids(state_dir)
    return set(said) <= set(found) and len(found) == len(set(found)) <= len(said) + unsaid


def test_entries_of_a_killed_gateway_are_moved_at_once_and_its_mover_ends(tmp_path: Path) -> None:
    with recorder(tmp_path) as killed:
        mover = killed.mover()
        killed.process.kill()
        killed.process.wait()
        until(lambda: not runs(mover), 2)
        assert has_all_once(tmp_path, killed.said(), unsaid=1), "the last may have been recorded but not said"
        assert list(journal_folder(tmp_path).iterdir()) == []


def test_killed_mover_is_started_again_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    with recorder(tmp_path) as recording:
        first = recording.mover()
        first.kill()
        until(lambda: recording.mover() != first, 5)
        before = recording.said()
        until(lambda: set(before) <= set(ids(tmp_path)), 5)
        recording.process.terminate()
        assert recording.ends(5).count("The ledger's mover has ended (exit code -9)") == 1
        assert has_all_once(tmp_path, recording.said())
        assert list(journal_folder(tmp_path).iterdir()) == []


def test_both_killed_entries_are_moved_after_the_next_start(tmp_path: Path) -> None:
    with recorder(tmp_path) as killed:
        mover = killed.mover()
        mover.suspend()
        time.sleep(0.7)
        killed.process.kill()
        mover.kill()
        killed.process.wait()
    assert not has_all_once(tmp_path, killed.said(), unsaid=1)
    with recorder(tmp_path, "next") as following:
        following.process.terminate()
        following.ends(5)
    assert has_all_once(tmp_path, killed.said() + following.said(), unsaid=1)
    assert list(journal_folder(tmp_path).iterdir()) == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_orderly_end_moves_everything_recorded_up_to_the_last_moment(tmp_path: Path, signum: signal.Signals) -> None:
    """Signals for the whole group, as a terminal sends them, or a supervisor to each process, end the gateway alone."""
    with recorder(tmp_path) as recording:
        mover = recording.mover()
        mover.send_signal(signum)
        time.sleep(0.1)
        assert recording.mover() == mover
        os.killpg(recording.process.pid, signum)
        assert recording.ends(5) == ""
        assert not runs(mover)
        assert has_all_once(tmp_path, recording.said())
        assert list(journal_folder(tmp_path).iterdir()) == []


def test_two_gateways_share_a_folder(tmp_path: Path) -> None:
    with recorder(tmp_path, "one") as one, recorder(tmp_path, "two") as two:
        one.process.kill()
        one.process.wait()
        time.sleep(0.3)
        two.process.terminate()
        assert two.ends(5) == ""
        until(lambda: has_all_once(tmp_path, one.said() + two.said(), unsaid=1), 2)
        assert list(journal_folder(tmp_path).iterdir()) == []


def test_locked_database_holds_up_no_call_and_gets_its_entries_later(tmp_path: Path) -> None:
    with recorder(tmp_path) as recording, closing(sqlite.connect(sqlite.store_path(tmp_path))) as holder:
        holder.execute("BEGIN IMMEDIATE")
        there, said = len(ids(tmp_path)), len(recording.said())
        time.sleep(1)
        assert len(recording.said()) > said + 100
        assert len(ids(tmp_path)) == there
        holder.execute("COMMIT")
        recording.process.terminate()
        assert recording.ends(5) == ""
        assert has_all_once(tmp_path, recording.said())


async def test_without_a_mover_entries_stay_in_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    journal = Journal(journal_folder(tmp_path))
    with caplog.at_level(logging.WARNING):
        async with MoverProcess(journal, Orders(str(tmp_path), journal.owner)):
            with journal:
                journal.record(entry())
    assert "cannot be started" in caplog.text
    assert len(list(journal_folder(tmp_path).iterdir())) == 1


async def test_mover_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(mover_process, "_END_S", 0.2)
    journal = Journal(journal_folder(tmp_path))
    began = time.monotonic()
    async with MoverProcess(journal, Orders(str(tmp_path), journal.owner)):
        pass
    assert time.monotonic() - began < 2
    assert "took more than" in caplog.text


@pytest.fixture
def running(engine_server: LoopbackServer, tmp_path: Path) -> Iterator[GatewayProcess]:
    with gateway_process(engine_server.url, tmp_path) as made:
        yield made


class Calling(threading.Thread):
    """A client that makes one call after the other until there is no gateway, and knows which were answered."""

    def __init__(self, gateway: GatewayProcess) -> None:
        super().__init__()
        self.answered: list[str] = []
        self._gateway = gateway
        self.start()

    def run(self) -> None:
        with self._gateway.client as client:
            try:
                while True:
                    answer = client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES)
                    self.answered.append(answer.headers["x-request-id"])
            except Exception:  # noqa: BLE001 (whatever it is that a client sees of a gateway that goes)
                return


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_gateway_that_ends_under_load_leaves_all_entries(running: GatewayProcess, signum: signal.Signals) -> None:
    (mover,) = psutil.Process(running.process.pid).children()
    callers = [Calling(running) for _ in range(4)]
    until(lambda: sum(len(caller.answered) for caller in callers) > 80, 30)
    running.process.send_signal(signum)
    running.process.wait(5)
    for caller in callers:
        caller.join()
    until(lambda: not runs(mover), 2)
    # An answer is with its client a moment before its entry is recorded: one call a client may be in that moment.
    answered = [name for caller in callers for name in (caller.answered[:-1] if signum == signal.SIGKILL else caller.answered)]
    assert len(answered) > 40
    found = ids(running.state_dir)
    assert set(answered) <= set(found)
    assert len(found) == len(set(found))
    assert list(journal_folder(running.state_dir).iterdir()) == []
