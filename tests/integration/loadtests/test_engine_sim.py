"""The simulated engine as a server: the official client, the gateway in front of it, clients that leave."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Barrier, Thread

import aiohttp
import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from gateway.adapters import sqlite, sqlite_ledger, sqlite_tenants
from gateway.adapters.probed_fleet import ProbedFleet
from gateway.adapters.static_discovery import StaticDiscovery
from gateway.adapters.system_clock import SystemClock
from gateway.policy.routing import Pressure
from gateway.protocol.plain import Engine
from gateway.settings import GatewaySettings, StaticFleet
from loadtests.sim_answer import text_of
from tests.e2e.stack import free_ports, until
from tests.engine_process import MODEL, EngineProcess, engine_process
from tests.integration.gateway.conftest import _gateway_thread

PROMPT_TOKENS = 10


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with engine_process(free_ports(1)[0], "--figures", "h100-8b", "--scale", "5") as made:
        yield made


@pytest.fixture(scope="module")
def client(engine: EngineProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key="-", max_retries=0) as made:
        yield made


def says(tokens: int) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": f"대답은 {tokens:4} tokens"}]


def test_official_client_gets_whole_answers(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=says(30))
    assert answer.choices[0].message.content == text_of(0, 30)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (PROMPT_TOKENS + 2, 30)


def test_official_client_gets_streams(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=says(30), max_tokens=20, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text_of(0, 20)
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 20


def test_official_client_gets_completions(client: openai.OpenAI) -> None:
    assert client.completions.create(model=MODEL, prompt="한 줄, 6 tokens").choices[0].text == text_of(0, 6)
    assert [model.id for model in client.models.list()] == [MODEL]


def test_official_client_is_told_what_is_wrong(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="`other` does not exist"):
        client.chat.completions.create(model="other", messages=says(3))
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        client.chat.completions.create(model=MODEL, messages=says(3), max_tokens=100_000)
    assert httpx.get(f"{client.base_url}chat/completions").status_code == 405
    assert httpx.get(f"{client.base_url}nothing").status_code == 404


def test_client_that_leaves_frees_its_place(engine: EngineProcess, client: openai.OpenAI) -> None:
    aborted = engine.state()["aborted"]
    with client.chat.completions.create(model=MODEL, messages=says(9000), stream=True) as stream:
        next(iter(stream))
        assert engine.state()["running"] == 1
    until(lambda: engine.state()["running"] == 0, 5, "the engine notices")
    assert engine.state()["aborted"] == aborted + 1


def test_many_at_once_all_come_whole(client: openai.OpenAI) -> None:
    lengths = [5 + number for number in range(40)]
    answers: dict[int, str] = {}
    together = Barrier(len(lengths))

    def ask(tokens: int) -> None:
        together.wait()
        chunks = client.chat.completions.create(model=MODEL, messages=says(tokens), stream=True)
        answers[tokens] = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    threads = [Thread(target=ask, args=(tokens,)) for tokens in lengths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {tokens: text_of(0, tokens) for tokens in lengths}


async def test_gateways_fleet_takes_it_for_vllm_and_knows_how_full_it_is(engine: EngineProcess) -> None:
    fleet = ProbedFleet([StaticDiscovery([engine.url], ())], look_s=1, probe_timeout_s=2)
    told: list[Pressure] = []
    fleet.on_pressure(lambda _, pressure: told.append(pressure))
    async with aiohttp.ClientSession() as session:
        await fleet.look(session)
        await fleet.gauge(session)
    (replica,) = fleet.ready(MODEL)
    assert replica.engine is Engine.VLLM
    assert told == [Pressure(0.0, 0, 25700 * 16)]


def test_calls_through_the_gateway_are_counted_as_the_engine_counts(engine: EngineProcess, tmp_path: Path) -> None:
    settings = GatewaySettings(fleets=(StaticFleet(kind="static", urls=(engine.url,)),), look_s=0.05)
    with _gateway_thread(settings, tmp_path) as port, closing(sqlite.connect(sqlite.store_path(tmp_path))) as store:
        url = f"http://127.0.0.1:{port}"
        until(lambda: httpx.get(f"{url}/health/ready").status_code == 200, 10, "the engine is found")
        key, _ = sqlite_tenants.create_key(store, SystemClock(), tenant="anna", project="chatbot")
        with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as through:
            chunks = list(through.chat.completions.create(model=MODEL, messages=says(25), stream=True))
            with through.chat.completions.create(model=MODEL, messages=says(9000), stream=True) as left:
                for _, _ in zip(range(10), left, strict=False):
                    pass
        until(lambda: len(sqlite_ledger.read_entries(store, last=2)) == 2, 5, "two entries")
        aborted, whole = sqlite_ledger.read_entries(store, last=2)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text_of(0, 25)
    assert (whole.prompt_tokens, whole.completion_tokens, whole.outcome) == (PROMPT_TOKENS + 2, 25, "completed")
    assert (aborted.prompt_tokens, aborted.outcome) == (PROMPT_TOKENS + 2, "aborted")
    assert aborted.completion_tokens is not None
    assert aborted.completion_tokens >= 9


def test_engine_that_there_is_not_is_an_error_that_names_those_that_there_are() -> None:
    command = [sys.executable, "-m", "loadtests.engine_sim", "--port", "1", "--figures", "h300"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "demo-cpu" in done.stderr
