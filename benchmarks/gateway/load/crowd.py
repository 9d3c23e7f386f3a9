"""Very many slow streams open at once: does any fail, what does each hold, and how fast are short calls meanwhile."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

import msgspec
import psutil

from benchmarks.gateway import request
from benchmarks.gateway.load.answer import is_whole_stream
from benchmarks.gateway.load.connection import Broken, Connection
from benchmarks.gateway.load.rate import Caller, RateReport
from benchmarks.gateway.processes import memory_bytes

_PATIENCE_S = 20.0  # for the last streams to begin
_WARM_CALLS_S = 3.0


class CrowdPlan(msgspec.Struct, frozen=True, tag="crowd"):
    """`per_s` streams are opened a second, then all are held for `hold_s` with `calls_per_s` short calls beside them."""

    port: int
    key: str
    streams: int
    per_s: float
    every_ms: int
    hold_s: float
    calls_per_s: float
    watch: int

    @property
    def chunks(self) -> int:
        """So many that the first stream outlives the hold, however late the last one begins."""
        needed_s = self.streams / self.per_s + _PATIENCE_S + self.hold_s + 2 * self.every_ms / 1000
        return math.ceil(needed_s * 1000 / self.every_ms)


class CrowdReport(msgspec.Struct, frozen=True):
    """`open` streams had begun and none of them had ended, at the beginning of the hold and at its end."""

    open: int
    failed: int
    before_bytes: int
    open_bytes: int
    calls: RateReport
    first_failure: str = ""


@dataclass(slots=True)
class _Stream:
    connection: Connection | None = None
    ended: bool = False
    failure: str = ""

    @property
    def is_open(self) -> bool:
        return self.connection is not None and self.connection.status == 200 and not self.ended


async def run(plan: CrowdPlan) -> CrowdReport:
    gateway = psutil.Process(plan.watch)
    await Caller(plan.port, plan.key).run(100, _WARM_CALLS_S)
    before = memory_bytes(gateway)
    asked = request.http(f"127.0.0.1:{plan.port}", plan.key, request.streaming_call(plan.chunks, plan.every_ms))
    streams = [_Stream() for _ in range(plan.streams)]
    tasks = [asyncio.create_task(_run(stream, plan, asked, number / plan.per_s)) for number, stream in enumerate(streams)]
    await asyncio.sleep(plan.streams / plan.per_s)
    await _all_begun(streams)
    open_at_first = sum(stream.is_open for stream in streams)
    calls = await Caller(plan.port, plan.key).run(plan.calls_per_s, plan.hold_s)
    held, at_last = memory_bytes(gateway), sum(stream.is_open for stream in streams)
    await asyncio.gather(*tasks)
    failures = [stream.failure for stream in streams if stream.failure]
    return CrowdReport(min(open_at_first, at_last), len(failures), before, held, calls, next(iter(failures), ""))


async def _all_begun(streams: list[_Stream]) -> None:
    """Until every stream has begun or failed, or patience ends."""
    for _ in range(round(_PATIENCE_S / 0.5)):
        if all(stream.is_open or stream.ended for stream in streams):
            return
        await asyncio.sleep(0.5)


async def _run(stream: _Stream, plan: CrowdPlan, asked: bytes, wait_s: float) -> None:
    await asyncio.sleep(wait_s)
    try:
        async with await Connection.to(plan.port) as connection:
            stream.connection = connection
            answer = await connection.ask(asked)
        if not is_whole_stream(answer.whole, plan.chunks):
            stream.failure = answer.whole[:300].decode(errors="replace")
    except Broken as problem:
        stream.failure = str(problem)
    stream.ended = True
