"""The load generator: one plan in, as JSON, and one report out. Open loop: times count from when a call was due."""

from __future__ import annotations

import asyncio
import math
import random
import sys
import time
from dataclasses import dataclass, field

import msgspec
import uvloop

from benchmarks.overload.http_plan import Call, ClosedPlan, ClosedReport, LoadPlan, LoadReport
from benchmarks.overload.http_request import Request, Requests
from benchmarks.overload.http_stream import Reading, StreamConnection

_RAMP_S = 3.0
_LEAVE_S = 2.0


@dataclass(slots=True)
class Client:
    """Sends requests over as many connections as it takes; kept ones are used again."""

    idle: dict[int, list[StreamConnection]] = field(default_factory=dict)
    busy: set[StreamConnection] = field(default_factory=set)
    has_left: bool = False

    async def ask(self, request: Request, reading: Reading) -> bool:
        """Whether the answer ended in order. Raises OSError."""
        idle = self.idle.setdefault(request.port, [])
        while idle and idle[-1].closed:
            idle.pop()
        connection = idle.pop() if idle else await StreamConnection.to(request.port)
        self.busy.add(connection)
        in_order = False
        try:
            in_order = await connection.ask(request.raw, reading)
        finally:
            self.busy.discard(connection)
            if not in_order or self.has_left:
                connection.abort()
        if not connection.closed:
            idle.append(connection)
        return in_order

    async def leave(self) -> None:
        self.has_left = True  # what is still connecting does so in vain
        for connection in (*self.busy, *(one for idle in self.idle.values() for one in idle)):
            connection.abort()
        await asyncio.sleep(0)  # for it to happen


class OpenLoop:
    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._client = Client()
        self._calls: list[Call] = []
        self._ending = False
        self._began = 0.0

    async def run(self) -> LoadReport:
        plan, requests = self._plan, Requests(self._plan)
        chance = random.Random(plan.seed + 1_000_003)  # noqa: S311 - a seed is wanted, not a secret
        until = plan.warm_s + plan.seconds + plan.tail_s
        self._began = time.perf_counter()
        due = 0.0
        tasks: set[asyncio.Task[None]] = set()
        while (due := due + chance.expovariate(plan.per_s)) < until:
            request = requests.next()
            if (wait := due - self._now()) > 0:
                await asyncio.sleep(math.ceil(wait * 1000) / 1000)  # uvloop would round it down
            task = asyncio.create_task(self._call(request, due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.sleep(max(0.0, until - self._now()))
        self._ending = True
        await self._client.leave()
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=_LEAVE_S)
            for task in left:  # not even connected yet
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await asyncio.sleep(0)
        return LoadReport(self._calls, time.process_time(), self._now())

    def _now(self) -> float:
        return time.perf_counter() - self._began

    async def _call(self, request: Request, due: float) -> None:
        plan = self._plan
        call = Call(request.tier, due, self._now() - due)
        self._calls.append(call)

        def tokens(count: int) -> None:
            now = self._now()
            if call.first_s is None:
                call.first_s = now - due
            if plan.warm_s <= now < plan.warm_s + plan.seconds:
                call.tokens += count

        reading = Reading(tokens)
        try:
            in_order = await self._client.ask(request, reading)
        except OSError:
            in_order = False
        call.status, call.retry_after_s, call.error = reading.status, reading.retry_after_s, reading.error
        if in_order:
            call.ended_s = self._now() - due
        else:
            call.broken = not self._ending


async def closed_loop(plan: ClosedPlan) -> ClosedReport:
    """Only calls that end between the ramp and the end count."""
    requests, client = Requests(plan.load), Client()
    report = ClosedReport(0, 0, 0, plan.load.seconds)
    counting = False

    def tokens(count: int) -> None:
        report.tokens += count if counting else 0

    async def user() -> None:
        while True:
            reading = Reading(tokens)
            in_order = await client.ask(requests.next(), reading)
            well = in_order and reading.status == 200 and not reading.error
            report.calls += counting and well
            report.failed += not well

    users = [asyncio.create_task(user()) for _ in range(plan.clients)]
    await asyncio.sleep(_RAMP_S)
    counting = True
    await asyncio.sleep(plan.load.seconds)
    for task in users:
        task.cancel()
    await asyncio.gather(*users, return_exceptions=True)
    await client.leave()
    return report


async def run(plan: LoadPlan | ClosedPlan) -> LoadReport | ClosedReport:
    return await (OpenLoop(plan).run() if isinstance(plan, LoadPlan) else closed_loop(plan))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        made = runner.run(run(msgspec.json.decode(sys.argv[1], type=LoadPlan | ClosedPlan)))
    sys.stdout.write(msgspec.json.encode(made).decode() + "\n")
