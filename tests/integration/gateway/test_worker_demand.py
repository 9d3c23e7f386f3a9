"""Workers tell each other what is asked of them; what is old, half or of another version is passed over."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

from gateway.adapters.asyncio_gate import AsyncioGate
from gateway.adapters.worker_demand import OwnDemand, WorkersDemand
from gateway.policy.admission import Ask, Capacity, Rules
from gateway.policy.limits import Tier
from gateway.ports import Replica, Telling
from tests.fakes import FakeClock, FakeFleet

M = "daemun-demo"


async def worker(folder: Path, clock: FakeClock, running: int) -> WorkersDemand:
    """That has so many calls running."""
    gate = AsyncioGate(Rules(), clock)
    gate.resize(M, Capacity(64))
    for _ in range(running):
        await gate.place(M, Ask("anna", Tier.PAID, 10, 20)).take()
    return WorkersDemand(OwnDemand(gate, FakeFleet({M: [Replica("a", M, "http://a")], "cold": []}), clock), folder, clock)


def files(folder: Path) -> int:
    return len(list(folder.iterdir()))


def until_told(folder: Path, count: int) -> None:
    end = time.monotonic() + 10
    while len(list(folder.glob("*.json"))) < count:
        assert time.monotonic() < end
        time.sleep(0.01)


def running(tellings: Sequence[Telling]) -> list[int]:
    return [telling.models[M].demand.tiers[Tier.PAID].running for telling in tellings]


async def test_each_hears_of_the_others_until_they_end_or_are_silent(tmp_path: Path) -> None:
    clock = FakeClock()
    async with await worker(tmp_path, clock, 1) as first:
        async with await worker(tmp_path, clock, 2) as second:
            await asyncio.to_thread(until_told, tmp_path, 2)
            told = await first.of_all()
            assert running(told) == [1, 2]
            assert running(await second.of_all()) == [2, 1]
            assert told[1] == (await second.of_all())[0]
            clock.advance(3.5)
            assert running(await first.of_all()) == [1]
            assert files(tmp_path) == 2
        assert files(tmp_path) == 1
    assert files(tmp_path) == 0


async def test_what_cannot_be_read_is_passed_over_and_goes_when_it_is_old(tmp_path: Path) -> None:
    clock = FakeClock()
    first = await worker(tmp_path, clock, 1)
    for number, content in enumerate(
        [b"", b"{", b"[]", b'{"at":1750001000}', b'{"at":1750001000,"models":{"m":{"demand":{"x":1}}}}']
    ):
        path = tmp_path / f"{number}.json"
        path.write_bytes(content)
        os.utime(path, (clock.time(), clock.time()))
    assert running(await first.of_all()) == [1]
    assert files(tmp_path) == 5
    clock.advance(61)
    assert running(await first.of_all()) == [1]
    assert files(tmp_path) == 0
