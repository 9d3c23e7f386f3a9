"""A gateway whose ledger has nowhere to go: its database is gone, or its disk is full. No call is spoiled or unaccounted.

LEDGER_DOWN_S=600 keeps the database away for ten minutes, at 100 calls a second; `pytest -s` shows what that was like.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from gateway.adapters.journal import Journal, journal_folder
from gateway.adapters.ledger_mover import Orders, open_ledger
from gateway.adapters.mover_process import MoverProcess
from gateway.ledger_query import LedgerQuery
from tests.entries import entry
from tests.postgres_server import PostgresServer, postgres_server

ALL = LedgerQuery()
DOWN_S = float(os.environ.get("LEDGER_DOWN_S", "6"))
AT_A_TIME = 20 if DOWN_S < 60 else 2


async def until(true: Callable[[], bool], within_s: float = 60) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """One to stop, which no other test uses."""
    with postgres_server() as server:
        yield server


async def test_entries_wait_while_the_database_is_gone_and_arrive_when_it_is_back(
    own_postgres: PostgresServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """By default some seconds for ten minutes: how often the database is tried does not depend on how long it takes."""
    orders = Orders(str(tmp_path), (journal := Journal(journal_folder(tmp_path))).owner, own_postgres.new_database())
    recorded = 0

    async def record_for(seconds: float) -> None:
        nonlocal recorded
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(AT_A_TIME):
                journal.record(entry(recorded))
                recorded += 1
            await asyncio.sleep(0.02)

    async with MoverProcess(journal, orders):
        with journal:
            await record_for(1.0)
            await asyncio.to_thread(wait_for_some, orders)
            own_postgres.stop()
            before = recorded
            await record_for(DOWN_S)
            waiting = list(journal_folder(tmp_path).glob("*.journal"))
            assert len(waiting) > 10, "they wait"
            own_postgres.start()
            back_at, while_down = time.monotonic(), recorded - before
            await record_for(1.0)
            await until(lambda: not any(path.exists() for path in waiting), within_s=DOWN_S + 60)
            took_s = time.monotonic() - back_at
    with capfd.disabled():
        say(f"down for {DOWN_S:.0f} s: {while_down} entries in {len(waiting)} files, moved {took_s:.1f} s after its return")
    assert await asyncio.to_thread(held, orders, recorded) == (recorded, recorded)
    assert list(journal_folder(tmp_path).glob("*.journal")) == []
    said = capfd.readouterr().err
    assert "does not take entries" in said
    assert said.count("\n") < 12, "it is said, and not all the time"
    assert "s3cret" not in said


def say(figures: str) -> None:
    """What a run has measured; shown with `pytest -s`."""
    print(figures)  # noqa: T201


def wait_for_some(orders: Orders) -> None:
    end = time.monotonic() + 60
    while held(orders, 0) is None:
        assert time.monotonic() < end
        time.sleep(0.1)


def held(orders: Orders, recorded: int) -> tuple[int, int] | None:
    """How many entries the store has, and how many of those that were recorded; None if it has none."""
    with closing(open_ledger(orders)) as store:
        (total,) = store.sums(ALL, ())
        return (total.calls, len(store.holds([f"req_{number}" for number in range(recorded)]))) if total.calls else None


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """As if the disk were full beyond that; the kernel's own limit, and the signal that comes with it ignored as Python does."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


def mover_runs() -> bool:
    """Then it has not the limit that is set afterwards. Servers of other tests are children of this process too."""
    living = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return any("gateway.adapters.ledger_mover" in child.cmdline() for child in living)


async def test_full_disk_keeps_entries_in_memory_and_loses_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    orders = Orders(str(tmp_path), (journal := Journal(journal_folder(tmp_path))).owner)
    with caplog.at_level(logging.WARNING), closing(open_ledger(orders)) as store:
        store.sums(ALL, ())
        async with MoverProcess(journal, orders):
            await until(mover_runs)
            with journal:
                with files_up_to(1000):
                    for number in range(50):
                        journal.record(entry(number))
                    assert journal.is_stuck()
                    await asyncio.sleep(0.5)
                    journal.record(entry(50))
                assert journal.is_stuck()
                await until(lambda: not journal.is_stuck())
                journal.record(entry(51))
        assert store.holds([f"req_{number}" for number in range(60)]) == {f"req_{number}" for number in range(52)}
    assert "cannot be written" in caplog.text
    assert "can be written again" in caplog.text


def test_journal_on_a_full_device_is_stuck_and_says_what_it_could_not_keep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """/dev/full answers every write as a full disk does."""
    opened = os.open

    def open_full(path: str, flags: int, mode: int = 0o777) -> int:
        if not str(path).endswith(".new"):
            return opened(path, flags, mode)
        os.close(opened(path, flags, mode))
        return opened("/dev/full", os.O_WRONLY)

    monkeypatch.setattr(os, "open", open_full)
    with Journal(tmp_path) as journal:
        journal.record(entry(1))
        assert journal.is_stuck()
    assert "No space left on device" in caplog.text
    assert '"req_1"' in caplog.text
