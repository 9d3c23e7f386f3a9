"""Short calls at a fixed rate, whether or not the answers keep up: times count from when a call was due.

Calls are due at random moments (a Poisson process, seeded). The loop's timers have a resolution of a millisecond, so a call is
sent up to that much late, and more on a busy core; how late is reported, and is part of each time.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from dataclasses import dataclass, field

import msgspec

from benchmarks.gateway import request
from benchmarks.gateway.load.connection import Broken, Connection


class RatePlan(msgspec.Struct, frozen=True, tag="rate"):
    port: int
    key: str
    per_s: float
    seconds: float


class RateReport(msgspec.Struct, frozen=True):
    """Milliseconds. `late_ms` is the 99th percentile of how late calls were sent."""

    calls: int
    failed: int
    p50_ms: float
    p99_ms: float
    late_ms: float


@dataclass(slots=True)
class Caller:
    """Sends calls when they are due, over as many connections as that takes, and keeps the times."""

    port: int
    key: str
    times: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    failed: int = 0
    _idle: list[Connection] = field(default_factory=list)

    async def run(self, per_s: float, seconds: float) -> RateReport:
        asked = request.http(f"127.0.0.1:{self.port}", self.key, request.short_call())
        chance = random.Random(7)  # noqa: S311 - a seed is wanted, not a secret
        begin = due = time.perf_counter()
        async with asyncio.TaskGroup() as calls:
            while (due := due + chance.expovariate(per_s)) < begin + seconds:
                if (wait := due - time.perf_counter()) > 0:
                    await asyncio.sleep(math.ceil(wait * 1000) / 1000)  # uvloop would round it down as well
                calls.create_task(self._call(asked, due))
        for connection in self._idle:
            connection.abort()
        return self.report()

    async def _call(self, asked: bytes, due: float) -> None:
        try:
            connection = self._idle.pop() if self._idle else await Connection.to(self.port)
            self.lags.append(time.perf_counter() - due)
            answer = await connection.ask(asked)
        except Broken:
            self.failed += 1
            return
        self.times.append(answer.at - due)
        self.failed += answer.status != 200
        if not connection.closed:
            self._idle.append(connection)

    def report(self) -> RateReport:
        return RateReport(
            calls=len(self.times) + self.failed,
            failed=self.failed,
            p50_ms=percentile(self.times, 50) * 1000,
            p99_ms=percentile(self.times, 99) * 1000,
            late_ms=percentile(self.lags, 99) * 1000,
        )


def percentile(values: list[float], percent: float) -> float:
    """The nearest-rank percentile; infinite where there is nothing, since nothing came."""
    if not values:
        return float("inf")
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


async def run(plan: RatePlan) -> RateReport:
    return await Caller(plan.port, plan.key).run(plan.per_s, plan.seconds)
