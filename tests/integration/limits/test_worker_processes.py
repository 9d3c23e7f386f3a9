"""A limit holds across gateway processes: 1,000 calls at once, Redis killed or paused, workers killed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

import aiohttp
import pytest

from gateway.policy.window import MINUTE_MS, phase_of
from tests.integration.gateway.conftest import MODEL
from tests.integration.limits.conftest import Start, Workers, say
from tests.redis_server import RedisServer

BODY = {"model": MODEL, "messages": [{"role": "user", "content": "안녕?"}], "max_tokens": 8}
AT_ONCE = 1000


async def call_all(workers: Workers, urls: Sequence[str], count: int, at_once: int = AT_ONCE) -> list[tuple[int, float]]:
    """So many calls, spread over these workers: status and when to retry."""
    headers = {"authorization": f"Bearer {workers.key}"}
    places = asyncio.Semaphore(at_once)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:

        async def one(number: int) -> tuple[int, float]:
            async with places, session.post(f"{urls[number % len(urls)]}/v1/chat/completions", json=BODY) as answer:
                await answer.read()
                return answer.status, float(answer.headers.get("retry-after", "0"))

        return await asyncio.gather(*(one(number) for number in range(count)))


def left_of_minute_s(scope_id: str = "tenant:anna") -> float:
    return (MINUTE_MS - (int(time.time() * 1000) + phase_of(scope_id)) % MINUTE_MS) / 1000


async def until_a_window_has(seconds: float) -> None:
    """So that a test's calls fall into one window."""
    left_s = left_of_minute_s()
    if left_s < seconds:
        await asyncio.sleep(left_s + 0.1)


def statuses(answers: Sequence[tuple[int, float]]) -> Counter[int]:
    return Counter(status for status, _ in answers)


@pytest.mark.parametrize("limit", [200, 500])
async def test_thousand_calls_at_once_over_four_workers(start: Start, server: RedisServer, limit: int) -> None:
    workers = start(4, {"requests_per_minute": limit})
    await until_a_window_has(20)
    before = server.script_calls()
    answers = await call_all(workers, workers.urls, AT_ONCE)
    asked = server.script_calls() - before
    said = statuses(answers)
    say(f"limit {limit}: admitted {said[200]}, refused {said[429]}, script calls {asked} for {AT_ONCE} calls")
    assert set(said) <= {200, 429}
    assert 0.98 * limit <= said[200] <= limit
    assert (await call_all(workers, workers.urls, 40))[0][0] == 429
    refused = [retry for status, retry in answers if status == 429]
    assert all(0 < retry <= 61 for retry in refused)


async def test_redis_is_seldom_asked_under_load(start: Start, server: RedisServer) -> None:
    workers = start(4, {"requests_per_minute": 100_000, "tokens_per_minute": 100_000_000, "concurrent": 5_000})
    await until_a_window_has(20)
    await call_all(workers, workers.urls, 400, 100)
    before, began, count = server.script_calls(), time.monotonic(), 6000
    said = statuses(await call_all(workers, workers.urls, count, 64))
    asked, took_s = server.script_calls() - before, time.monotonic() - began
    say(f"{count} calls in {took_s:.1f} s, script calls {asked}: one in {count / asked:.0f}")
    assert said == {200: count}
    assert asked <= count / 50


def granted(server: RedisServer, *pids: int) -> int:
    """What Redis knows to be held by these processes, of all limits that are counted in calls a minute."""
    with server.client() as client:
        told = [client.hgetall(key) for key in client.scan_iter("daemun:*:requests*")]
    of = tuple(f"h:{pid}-" for pid in pids)
    return sum(int(value.split()[0]) for fields in told for name, value in fields.items() if name.startswith(of))


async def test_two_workers_killed_give_back_what_they_had_left(start: Start, server: RedisServer) -> None:
    limit = 200
    workers = start(4, {"requests_per_minute": limit})
    await until_a_window_has(25)
    doomed = [process.pid for process in workers.processes[:2]]
    admitted, left = 0, 0
    while left < 0.1 * limit:  # what is idle for two seconds they give back by themselves
        admitted += statuses(await call_all(workers, workers.urls[:2], 10))[200]
        left = granted(server, *doomed) - admitted
    workers.kill(0, 1)
    killed_at = time.monotonic()
    admitted += statuses(await call_all(workers, workers.urls[2:], limit))[200]
    while admitted < 0.98 * limit and time.monotonic() < killed_at + 8:
        admitted += statuses(await call_all(workers, workers.urls[2:], 20))[200]
        await asyncio.sleep(0.1)
    took_s = time.monotonic() - killed_at
    admitted += statuses(await call_all(workers, workers.urls[2:], 100))[200]
    say(f"two of four killed with {left} in hand: {admitted} of {limit} admitted, {took_s:.1f} s after the death")
    assert took_s < 5
    assert 0.98 * limit <= admitted <= limit


@pytest.mark.parametrize("data", ["kept", "lost", "paused"])
async def test_redis_that_goes_and_comes_back_lets_no_more_through(start: Start, server: RedisServer, data: str) -> None:
    limit = 600
    workers = start(4, {"requests_per_minute": limit})
    await until_a_window_has(40)
    said = statuses(await call_all(workers, workers.urls, 100))
    if data == "kept":
        server.save()
    said += statuses(await call_all(workers, workers.urls, 100))
    if data == "paused":
        server.pause()
    else:
        server.kill()
    gone = statuses(await call_all(workers, workers.urls, 400))
    await asyncio.sleep(1 if data != "paused" else 6)
    if data == "paused":
        server.go_on()
    else:
        server.start()
    back_at, said = time.monotonic(), said + gone
    while said[200] < 0.98 * limit and time.monotonic() < back_at + 12:
        said += statuses(await call_all(workers, workers.urls, 100))
        await asyncio.sleep(0.3)
    took_s = time.monotonic() - back_at
    said += statuses(await call_all(workers, workers.urls, 400))
    say(f"{data}: while it was gone {dict(gone)}; {said[200]} of {limit} admitted in all, {took_s:.1f} s after its return")
    assert gone[200] > 0, "what is leased may be spent"
    assert gone[503] > 0, "and no more"
    assert 0.98 * limit <= said[200] <= limit


async def test_client_that_waits_as_long_as_it_is_told_gets_through(start: Start) -> None:
    workers = start(2, {"requests_per_minute": 4})
    left_s = left_of_minute_s()
    if not 5 < left_s < 20:
        await asyncio.sleep((left_s - 15) % 60)
    answers = await call_all(workers, workers.urls, 12, 1)
    waits = [retry for status, retry in answers if status == 429]
    assert statuses(answers)[200] == 4
    assert waits
    await asyncio.sleep(waits[-1])
    assert (await call_all(workers, workers.urls, 1))[0][0] == 200
