"""One worker's grants while Redis is slow, gone, or comes back; and tokens over several workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from gateway.adapters import redis_limits
from gateway.adapters.lease_file import LeaseFile
from gateway.adapters.metered_limits import MeteredLimits
from gateway.adapters.redis_limits import RedisGrants, WithoutRedis
from gateway.adapters.system_clock import SystemClock
from gateway.call_error import CallError
from gateway.errors import LimitsUnavailable, RateLimitExceeded
from gateway.policy.limits import Limits
from gateway.protocol.usage import Usage
from tests.contract.test_limit_store import OFFSET_MS, principal, request
from tests.integration.limits.conftest import say
from tests.integration.limits.test_worker_processes import until_a_window_has
from tests.redis_server import RedisServer

HOLD = WithoutRedis()


@asynccontextmanager
async def worker(url: str, folder: Path, without: WithoutRedis = HOLD) -> AsyncIterator[MeteredLimits]:
    clock = SystemClock()
    async with RedisGrants(url, LeaseFile(folder), clock, offset_ms=OFFSET_MS, without=without) as grants:
        yield MeteredLimits(grants, clock)


async def admitted(store: MeteredLimits, limits: Limits, calls: int) -> tuple[int, CallError | None]:
    """How many of so many calls were let through, and the last refusal."""
    through, refused = 0, None
    for _ in range(calls):
        try:
            (await store.reserve(principal(limits), request())).settle(Usage(5, 5))
            through += 1
        except CallError as error:
            refused = error
    return through, refused


@asynccontextmanager
async def slow_way(port: int, delay_s: list[float]) -> AsyncIterator[int]:
    """A port on which everything that goes to Redis and comes from it takes so much longer."""
    tasks: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await asyncio.sleep(delay_s[0])
                writer.write(data)
        finally:
            writer.transport.abort()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, away = await asyncio.open_connection("127.0.0.1", port)
        tasks.add(asyncio.create_task(carry(reader, away)))
        tasks.add(asyncio.create_task(carry(there, writer)))

    proxy = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield int(proxy.sockets[0].getsockname()[1])
    finally:
        proxy.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)


async def test_slow_redis_holds_up_nothing_that_is_leased(server: RedisServer, tmp_path: Path) -> None:
    limits = Limits(requests_per_day=100_000)
    delay_s = [0.0]
    async with slow_way(server.port, delay_s) as port, worker(f"redis://127.0.0.1:{port}/0", tmp_path / "leases") as store:
        delay_s[0] = 0.7
        through, longest_s, began = 0, 0.0, time.monotonic()
        while time.monotonic() < began + 6:
            before = time.monotonic()
            through += (await admitted(store, limits, 1))[0]
            longest_s = max(longest_s, time.monotonic() - before)
            await asyncio.sleep(0.001)
        say(f"Redis 0.7 s away: {through} calls in 6 s, the longest decision took {longest_s:.2f} s")
        assert through > 500
        assert longest_s < 2 * redis_limits._WAIT_S


async def test_without_redis_only_what_is_leased_is_spent(server: RedisServer, tmp_path: Path) -> None:
    limits = Limits(requests_per_day=1000)
    async with worker(server.url, tmp_path / "leases") as store:
        through, _ = await admitted(store, limits, 10)
        server.kill()
        more, refused = await admitted(store, limits, 2000)
        assert through == 10
        assert 0 < more < 990
        assert isinstance(refused, LimitsUnavailable)
        assert (refused.status, refused.code) == (503, "limits_unavailable")
        server.start()
        await asyncio.sleep(8)
        rest, refused = await admitted(store, limits, 2000)
        assert isinstance(refused, RateLimitExceeded)
        assert through + more + rest == 1000


async def test_share_is_a_part_of_the_next_windows_limit(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_limits, "_LOST_S", 1.0)
    limits = Limits(requests_per_minute=100)
    async with worker(server.url, tmp_path / "leases", WithoutRedis(most_workers=4)) as store:
        await until_a_window_has(12)
        assert (await admitted(store, limits, 1))[0] == 1
        server.kill()
        await asyncio.sleep(5)
        held, refused = await admitted(store, limits, 200)
        assert held < 99
        assert refused is not None
        assert refused.retry_after_s is not None
        who = principal(limits)
        (meter,) = store._grants.meters(who)
        meter.ends = 0.0
        meter.window -= 1  # as if the window in which it vanished were over
        share, refused = await admitted(store, limits, 200)
        assert share == 25
        assert isinstance(refused, RateLimitExceeded)


async def test_tokens_of_several_workers_exceed_a_window_by_what_calls_in_flight_were_underestimated(
    server: RedisServer, tmp_path: Path
) -> None:
    """Calls use up to twice what was learned: the overrun is that of the calls in flight, and the next window pays for it."""
    limit, limits = 60_000, Limits(tokens_per_minute=60_000)
    await until_a_window_has(25)
    used = worst = 0
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(worker(server.url, tmp_path / "leases")) for _ in range(4)]

        async def call(store: MeteredLimits, number: int) -> None:
            nonlocal used, worst
            try:
                reservation = await store.reserve(principal(limits), request(max_tokens=4000))
            except CallError:
                return
            really = 100 + number * 37 % 900
            await asyncio.sleep(0.01)
            worst = max(worst, really)
            used += really
            reservation.settle(Usage(20, really - 20))

        for number in range(100):
            await asyncio.gather(*(call(store, number * 4 + at) for at, store in enumerate(stores)))
    overrun = max(0, used - limit)
    say(f"limit {limit} tokens, used {used}, overrun {overrun}, of 4 calls in flight with at most {worst} each")
    assert used >= 0.9 * limit
    assert overrun <= 4 * worst
