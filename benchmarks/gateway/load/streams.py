"""Many streams at once, each replaced when it ends: how many a second come whole, and what a chunk costs the gateway."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import msgspec
import psutil

from benchmarks.gateway import request
from benchmarks.gateway.load.answer import is_whole_stream
from benchmarks.gateway.load.connection import Broken, Connection
from benchmarks.gateway.processes import processor_s

_PAUSE_S = 0.05  # after a failure, so that a gateway that refuses at once is not asked in a busy loop


class StreamsPlan(msgspec.Struct, frozen=True, tag="streams"):
    """`watch` is the process whose time a chunk is billed to; None for nobody's."""

    port: int
    key: str
    streams: int
    chunks: int
    every_ms: int
    warm_s: float
    seconds: float
    watch: int | None = None


class StreamsReport(msgspec.Struct, frozen=True):
    """What happened between the warm-up and the end."""

    completed: int
    failed: int
    seconds: float
    processor_s: float | None
    own_processor_s: float
    first_failure: str = ""


@dataclass(slots=True)
class _Tally:
    counting: bool = False
    completed: int = 0
    failed: int = 0
    first_failure: str = ""

    def fail(self, why: str) -> None:
        self.failed += 1
        self.first_failure = self.first_failure or why


async def run(plan: StreamsPlan) -> StreamsReport:
    tally = _Tally()
    users = [asyncio.create_task(_user(plan, tally, number / plan.streams)) for number in range(plan.streams)]
    watched = None if plan.watch is None else psutil.Process(plan.watch)
    await asyncio.sleep(plan.warm_s)
    tally.counting = True
    began, own, theirs = time.perf_counter(), time.process_time(), processor_s(watched) if watched else 0.0
    await asyncio.sleep(plan.seconds)
    tally.counting = False
    report = StreamsReport(
        completed=tally.completed,
        failed=tally.failed,
        seconds=time.perf_counter() - began,
        processor_s=processor_s(watched) - theirs if watched else None,
        own_processor_s=time.process_time() - own,
        first_failure=tally.first_failure,
    )
    for user in users:
        user.cancel()
    await asyncio.gather(*users, return_exceptions=True)
    return report


async def _user(plan: StreamsPlan, tally: _Tally, phase: float) -> None:
    """Asks for one stream after the other. `phase` in 0..1 spreads the users over the length of a stream."""
    asked = request.http(f"127.0.0.1:{plan.port}", plan.key, request.streaming_call(plan.chunks, plan.every_ms))
    await asyncio.sleep(phase * plan.chunks * plan.every_ms / 1000)
    while True:
        try:
            async with await Connection.to(plan.port) as connection:
                while not connection.closed:
                    await _stream(plan, tally, connection, asked)
        except Broken as problem:
            tally.fail(str(problem))
            await asyncio.sleep(_PAUSE_S)


async def _stream(plan: StreamsPlan, tally: _Tally, connection: Connection, asked: bytes) -> None:
    answer = await connection.ask(asked)
    if is_whole_stream(answer.whole, plan.chunks):
        tally.completed += tally.counting
    else:
        tally.fail(answer.whole[:300].decode(errors="replace"))
        await asyncio.sleep(_PAUSE_S)
