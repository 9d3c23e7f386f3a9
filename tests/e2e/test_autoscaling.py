"""Real Ray Serve and vLLM, scaled by what the gateway is asked: to zero, from zero with calls waiting, to two and back."""

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


async def ask(running: Stack, body: dict[str, object], clients: int, goes_on: Callable[[], bool]) -> Counter[tuple[int, bool]]:
    """Streams of so many clients at once, who ask again while it goes on, when they are told to if they are. The status of each
    call, and whether it came to its end, or told when to come.
    """
    limits = aiohttp.ClientTimeout(total=300)
    headers = {"authorization": f"Bearer {running.key}"}
    seen: Counter[tuple[int, bool]] = Counter()
    async with aiohttp.ClientSession(timeout=limits, headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def call() -> float:
            """Returns in how many seconds to come again."""
            async with session.post(f"{running.url}/v1/chat/completions", json=body) as answer:
                ended = (await answer.read()).endswith(b"data: [DONE]\n\n")
                told_s = float(answer.headers.get("retry-after", "0"))
                seen[answer.status, ended if answer.status == 200 else told_s > 0] += 1
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


def say(what: str) -> None:
    """What a run has measured; shown with `pytest -s`."""
    print(what)  # noqa: T201


def test_to_zero_from_zero_to_two_and_back(scaled: Stack) -> None:
    def there() -> int:
        return len(scaled.replicas())

    def ready() -> int:
        models = httpx.get(f"{scaled.url}/internal/demand").json()["models"]
        return int(models[MODEL]["replicas"]["ready"])

    to_zero_s = until(lambda: ready() == 0, 90, "no replica while nobody asks")
    waiting = asyncio.run(ask(scaled, BODY, 20, lambda: False))
    assert waiting == {(200, True): 20}
    until(lambda: len(scaled.entries()) == 20, 10, "20 entries in the ledger")
    waited_s = scaled.entries()[-1]["queue_s"]
    say(f"no replica after {to_zero_s:.0f} s; 20 calls at zero replicas: all served, after {waited_s:.0f} s in the queue")
    assert there() == 1

    async def load() -> tuple[Counter[tuple[int, bool]], float]:
        second = asyncio.create_task(asyncio.to_thread(until, lambda: there() == 2, 150, "a second replica under load"))
        seen = await ask(scaled, LONG, CLIENTS, lambda: not second.done())
        return seen, await second

    served, to_two_s = asyncio.run(load())
    assert set(served) <= {(200, True), (503, True)}
    to_one_s = until(lambda: there() < 2, 90, "one replica less after the load")
    say(f"{CLIENTS} clients: a second replica after {to_two_s:.0f} s; {dict(served)}")
    say(f"it was given back {to_one_s:.0f} s after the last call")
