"""Real Ray Serve and vLLM, scaled by what the gateway is asked: to zero, from zero with calls waiting, to two and back, and with
a replica killed.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator

import aiohttp
import httpx
import pytest

from tests.e2e.stack import MODEL, Stack, stack, until

BODY = {"model": MODEL, "messages": [{"role": "user", "content": "대문이 뭐예요?"}], "stream": True}
LONG = BODY | {"max_tokens": 200, "ignore_eos": True}
CLIENTS = 200
FEW_CLIENTS = 20
SCALED = {
    "SERVING__AUTOSCALING__ENABLED": "true",
    "SERVING__AUTOSCALING__LEAST": json.dumps({MODEL: 0}),
    "SERVING__AUTOSCALING__MOST": json.dumps({MODEL: 2}),
    "SERVING__AUTOSCALING__HOLD_S": "5",
    "SERVING__AUTOSCALING__IDLE_S": "5",
}


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("scaled"), **SCALED) as running:
        running.wait_until_ready()
        yield running


async def ask(running: Stack, body: dict[str, object], clients: int, goes_on: Callable[[], bool]) -> Counter[str]:
    """Streams of so many clients at once, who ask again while it goes on, when they are told to if they are. What became of
    each call.
    """
    limits = aiohttp.ClientTimeout(total=300)
    headers = {"authorization": f"Bearer {running.key}"}
    seen: Counter[str] = Counter()
    async with aiohttp.ClientSession(timeout=limits, headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def call() -> float:
            """Returns in how many seconds to come again."""
            async with session.post(f"{running.url}/v1/chat/completions", json=body) as answer:
                said = await answer.read()
                told_s = float(answer.headers.get("retry-after", "0"))
                seen[became(answer.status, said, told_s)] += 1
                return told_s

        async def client() -> None:
            again = time.monotonic() + await call()
            while goes_on():
                if time.monotonic() < again:
                    await asyncio.sleep(0.1)
                else:
                    again = time.monotonic() + await call()

        await asyncio.gather(*(client() for _ in range(clients)))
    return seen


def became(status: int, said: bytes, told_s: float) -> str:
    """Of a stream: served to its end, told before it began, or told in it, after it had waited in vain."""
    if status == 200 and said.endswith(b"data: [DONE]\n\n"):
        return "served"
    if status == 503 and told_s > 0.0:
        return "told"
    return "evicted" if status == 200 and b'"code":"queue_timeout"' in said else f"{status}: {said[-200:]!r}"


def ready(running: Stack) -> int:
    models = httpx.get(f"{running.url}/internal/demand").json()["models"]
    return int(models[MODEL]["replicas"]["ready"])


def say(what: str) -> None:
    """What a run has measured; shown with `pytest -s`."""
    print(what)  # noqa: T201


def test_to_zero_from_zero_to_two_and_back(scaled: Stack) -> None:
    def there() -> int:
        return len(scaled.replicas())

    to_zero_s = until(lambda: ready(scaled) == 0, 180, "no replica while nobody asks")
    waiting = asyncio.run(ask(scaled, BODY, 20, lambda: False))
    assert waiting == {"served": 20}
    until(lambda: len(scaled.entries()) == 20, 10, "20 entries in the ledger")
    waited_s = scaled.entries()[-1]["queue_s"]
    say(f"no replica after {to_zero_s:.0f} s; 20 calls at zero replicas: all served, after {waited_s:.0f} s in the queue")
    until(lambda: there() <= 1, 180, "one replica or none after these calls")

    async def load() -> tuple[Counter[str], float]:
        second = asyncio.create_task(asyncio.to_thread(until, lambda: there() == 2, 300, "a second replica under load"))
        seen = await ask(scaled, LONG, CLIENTS, lambda: not second.done())
        return seen, await second

    served, to_two_s = asyncio.run(load())
    assert set(served) <= {"served", "told", "evicted"}
    assert served["served"] >= CLIENTS / 2
    to_one_s = until(lambda: there() < 2, 180, "one replica less after the load")
    say(f"{CLIENTS} clients: a second replica after {to_two_s:.0f} s; {dict(served)}")
    say(f"it was given back {to_one_s:.0f} s after the last call")


def test_a_killed_replica_has_a_successor_and_no_call_is_lost(scaled: Stack) -> None:
    """On the stack as the test before leaves it: with one replica or none."""

    def kill() -> float:
        until(lambda: ready(scaled) > 0, 180, "a replica for these calls")
        known = scaled.replica_names(MODEL)
        for name in known:
            scaled.replica_process(name).kill()
        return until(lambda: ready(scaled) > 0 and bool(scaled.replica_names(MODEL) - known), 180, "a successor")

    async def load() -> tuple[Counter[str], float]:
        killed = asyncio.create_task(asyncio.to_thread(kill))
        seen = await ask(scaled, LONG, FEW_CLIENTS, lambda: not killed.done())
        return seen, await killed

    seen, back_s = asyncio.run(load())
    assert set(seen) <= {"served", "told"}
    assert seen["served"] >= FEW_CLIENTS
    say(f"every replica killed under {FEW_CLIENTS} clients: a successor is ready after {back_s:.0f} s; {dict(seen)}")
