"""Real Ray Serve and vLLM, scaled by what the gateway is asked: to zero, from zero with calls waiting, to two and back."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator

import aiohttp
import httpx
import pytest

from tests.e2e.stack import MODEL, Stack, stack, until

BODY = {"model": MODEL, "messages": [{"role": "user", "content": "대문이 뭐예요?"}], "stream": True}
LONG = BODY | {"max_tokens": 400, "ignore_eos": True}
CALLS = 300
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


async def ask(running: Stack, body: dict[str, object], calls: int) -> Counter[tuple[int, bool]]:
    """So many streams at once, who is told to come again does: the last status of each, and whether it came to its end."""
    limits = aiohttp.ClientTimeout(total=300)
    headers = {"authorization": f"Bearer {running.key}"}
    async with aiohttp.ClientSession(timeout=limits, headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one() -> tuple[int, bool]:
            while True:
                async with session.post(f"{running.url}/v1/chat/completions", json=body) as answer:
                    ended = (await answer.read()).endswith(b"data: [DONE]\n\n")
                    if answer.status != 503:
                        return answer.status, ended
                    await asyncio.sleep(float(answer.headers["retry-after"]))

        return Counter(await asyncio.gather(*(one() for _ in range(calls))))


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
    waiting = asyncio.run(ask(scaled, BODY, 20))
    assert waiting == {(200, True): 20}
    until(lambda: len(scaled.entries()) == 20, 10, "20 entries in the ledger")
    waited_s = scaled.entries()[-1]["queue_s"]
    say(f"no replica after {to_zero_s:.0f} s; 20 calls at zero replicas: all served, after {waited_s:.0f} s in the queue")
    assert there() == 1

    async def load() -> tuple[Counter[tuple[int, bool]], float]:
        calls = asyncio.create_task(ask(scaled, LONG, CALLS))
        took_s = await asyncio.to_thread(until, lambda: there() == 2, 120, "a second replica under load")
        return await calls, took_s

    served, to_two_s = asyncio.run(load())
    assert served == {(200, True): CALLS}
    to_one_s = until(lambda: there() < 2, 90, "one replica less after the load")
    say(f"{CALLS} calls: all served, a second replica after {to_two_s:.0f} s, given back {to_one_s:.0f} s after the last call")
