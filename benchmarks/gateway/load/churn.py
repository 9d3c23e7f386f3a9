"""Very many short calls, and streams that their clients leave in the middle: does the gateway's memory grow."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import msgspec
import psutil

from benchmarks.gateway import request
from benchmarks.gateway.load.connection import Broken, Connection
from benchmarks.gateway.processes import memory_bytes

_AT_ONCE = 64
_CHUNKS, _EVERY_MS = 64, 10
_STAY_S = 0.2  # the longest that a client reads before it leaves; the stream takes three times as long
_SETTLE_S = 1.5  # for the gateway to write what it has to write


class ChurnPlan(msgspec.Struct, frozen=True, tag="churn"):
    """First the warm-up, then `legs` times an equal share of the calls and the aborted streams."""

    port: int
    key: str
    warm_calls: int
    warm_aborts: int
    calls: int
    aborts: int
    legs: int
    watch: int


class ChurnReport(msgspec.Struct, frozen=True):
    """Memory after the warm-up and after each leg. `aborted` streams had begun when their client left."""

    memory_bytes: list[int]
    calls: int
    aborted: int
    failed: int


@dataclass(slots=True)
class _Tally:
    calls: int = 0
    aborted: int = 0
    failed: int = 0


async def run(plan: ChurnPlan) -> ChurnReport:
    gateway = psutil.Process(plan.watch)
    await _leg(plan, _Tally(), plan.warm_calls, plan.warm_aborts)
    tally, memory = _Tally(), [memory_bytes(gateway)]
    for _ in range(plan.legs):
        await _leg(plan, tally, plan.calls // plan.legs, plan.aborts // plan.legs)
        memory.append(memory_bytes(gateway))
    return ChurnReport(memory, tally.calls, tally.aborted, tally.failed)


async def _leg(plan: ChurnPlan, tally: _Tally, calls: int, aborts: int) -> None:
    async with asyncio.TaskGroup() as callers:
        for share in _shares(calls):
            callers.create_task(_call(plan, tally, share))
    async with asyncio.TaskGroup() as leavers:
        for number, share in enumerate(_shares(aborts)):
            leavers.create_task(_leave(plan, tally, share, random.Random(number)))  # noqa: S311 - a seed is wanted
    await asyncio.sleep(_SETTLE_S)


def _shares(total: int) -> list[int]:
    return [total // _AT_ONCE + (number < total % _AT_ONCE) for number in range(_AT_ONCE)]


async def _call(plan: ChurnPlan, tally: _Tally, times: int) -> None:
    asked = request.http(f"127.0.0.1:{plan.port}", plan.key, request.short_call())
    connection = None
    for _ in range(times):
        try:
            connection = connection or await Connection.to(plan.port)
            answer = await connection.ask(asked)
        except Broken:
            tally.failed += 1
            connection = None
            continue
        tally.calls += 1
        tally.failed += answer.status != 200
    if connection is not None:
        connection.abort()


async def _leave(plan: ChurnPlan, tally: _Tally, times: int, chance: random.Random) -> None:
    asked = request.http(f"127.0.0.1:{plan.port}", plan.key, request.streaming_call(_CHUNKS, _EVERY_MS))
    for _ in range(times):
        try:
            async with await Connection.to(plan.port) as connection:
                status = await connection.begin(asked)
                await asyncio.sleep(chance.uniform(0, _STAY_S))
                in_the_middle = status == 200 and not connection.closed
        except Broken:
            in_the_middle = False
        tally.aborted += in_the_middle
        tally.failed += not in_the_middle
