"""A static fleet of a server that is not vLLM: `transformers serve` with the demo model, behind the whole gateway.

It differs from vLLM where servers do: it names its model as it likes, counts in the last chunk that has choices, ends its streams
without `[DONE]`, says what is wrong in a shape of its own, and refuses requests with fields that it does not know.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam

from gateway.adapters import sqlite, sqlite_ledger, sqlite_tenants
from gateway.adapters.system_clock import SystemClock
from gateway.entry import Entry
from gateway.settings import GatewaySettings, QueueSettings, StaticFleet
from tests.e2e.stack import free_ports, until
from tests.integration.gateway.conftest import _gateway_thread
from tests.integration.transformers_server import MODEL, cache_with_demo_model

DEMO = Path(__file__).parents[2] / "serving" / "demo" / "model"
START_S = 90.0  # imports of torch and transformers, on busy cores
NO_END = {"7": -100.0, "2": -100.0}  # the model's two ends, made so unlikely that it goes on to max_tokens


class Server:
    """`transformers serve` on a port; may be killed and started again there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cache = cache_with_demo_model(folder / "cache", DEMO)
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = os.environ | {"HF_HUB_CACHE": str(self._cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.integration.transformers_server", MODEL, str(self.port)]
        with (self._folder / "server.txt").open("ab") as out:
            self._process = subprocess.Popen(
                command, cwd=DEMO.parents[2], env=environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL
            )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@dataclass
class House:
    """The gateway in front of the server, and an application with a key of its own."""

    url: str
    server: Server
    state_dir: Path
    tenant: str
    client: openai.OpenAI

    def is_ready(self) -> bool:
        return httpx.get(f"{self.url}/health/ready").status_code == 200

    def ask(self, content: str = "안녕?", **more: Any) -> ChatCompletion:
        answer: ChatCompletion = self.client.chat.completions.create(model=MODEL, messages=says(content), **more)
        return answer

    def stream(self, content: str = "안녕?", **more: Any) -> openai.Stream[ChatCompletionChunk]:
        chunks: openai.Stream[ChatCompletionChunk] = self.client.chat.completions.create(
            model=MODEL, messages=says(content), stream=True, **more
        )
        return chunks

    def entries(self, count: int) -> list[Entry]:
        return entries_of(self.tenant, self.state_dir, count)


def entries_of(tenant: str, state_dir: Path, count: int) -> list[Entry]:
    """A tenant's, newest first, once there are that many: a thread moves them into the database."""

    def found() -> list[Entry]:
        with closing(sqlite.connect(sqlite.store_path(state_dir))) as connection:
            return [entry for entry in sqlite_ledger.read_entries(connection, last=50) if entry.tenant == tenant]

    until(lambda: len(found()) >= count, 5, f"{count} entries")
    return found()


def says(content: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": content}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    made.start()
    yield made
    made.kill()


@pytest.fixture(scope="module")
def gateway(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Its address and its state_dir, once it has found the server."""
    state_dir = tmp_path_factory.mktemp("gateway")
    settings = GatewaySettings(
        fleets=(StaticFleet(kind="static", urls=(server.url,)),), look_s=0.1, queue=QueueSettings(cold_patience_s=1)
    )
    with _gateway_thread(settings, state_dir) as port:
        url = f"http://127.0.0.1:{port}"
        until(lambda: httpx.get(f"{url}/health/ready").status_code == 200, START_S, "transformers serve is ready")
        yield url, state_dir


@pytest.fixture
def house(server: Server, gateway: tuple[str, Path], request: pytest.FixtureRequest) -> Iterator[House]:
    url, state_dir = gateway
    tenant = request.node.name[:64]  # the longest name that a tenant may have
    with closing(sqlite.connect(sqlite.store_path(state_dir))) as connection:
        key, _ = sqlite_tenants.create_key(connection, SystemClock(), tenant=tenant, project="static")
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        yield House(url, server, state_dir, tenant, client)


def test_models_are_named_as_the_server_names_them(house: House) -> None:
    assert [model.id for model in house.client.models.list()] == [MODEL]


def test_whole_answer_is_the_servers_own_and_is_counted(house: House) -> None:
    answer = house.ask(max_tokens=40)
    with openai.OpenAI(base_url=f"{house.server.url}/v1", api_key="-", max_retries=0) as direct:
        own = direct.chat.completions.create(model=MODEL, messages=says("안녕?"), max_tokens=40)
    assert answer.choices == own.choices
    assert answer.usage == own.usage
    assert answer.usage is not None
    (entry,) = house.entries(1)
    assert (entry.prompt_tokens, entry.completion_tokens) == (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    assert (entry.outcome, entry.status, entry.replica) == ("completed", 200, house.server.url)


def test_completion_passes_too(house: House) -> None:
    answer = house.client.completions.create(model=MODEL, prompt="대한민국의 수도는", max_tokens=5)
    assert answer.choices[0].text
    assert house.entries(1)[0].completion_tokens == 5


def test_streamed_text_is_the_whole_answers_and_its_tokens_are_counted(house: House) -> None:
    whole = house.ask(max_tokens=40)
    chunks = list(house.stream(max_tokens=40))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    streamed, asked = house.entries(2)
    assert (streamed.stream, streamed.outcome, asked.stream) == (True, "completed", False)
    assert (streamed.prompt_tokens, streamed.completion_tokens) == (asked.prompt_tokens, asked.completion_tokens)


def test_client_that_asks_for_usage_gets_it(house: House) -> None:
    chunks = list(house.stream(max_tokens=5, stream_options={"include_usage": True}))
    (usage,) = [chunk.usage for chunk in chunks if chunk.usage]
    (entry,) = house.entries(1)
    assert (usage.prompt_tokens, usage.completion_tokens) == (entry.prompt_tokens, entry.completion_tokens)
    assert usage.completion_tokens == 5


def test_field_that_the_server_does_not_know_is_named(house: House) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        house.ask(extra_body={"guided_choice": ["가", "나"]})
    assert caught.value.code == "invalid_request"
    assert "guided_choice" in caught.value.message


def test_abandoned_stream_ends_in_the_server_and_leaves_an_entry(house: House) -> None:
    with house.stream(max_tokens=1500, logit_bias=NO_END) as stream:
        next(iter(stream))
    (entry,) = house.entries(1)
    assert entry.outcome == "aborted"
    assert house.ask(max_tokens=2).choices[0].message.content, "the server is free again"


def test_server_that_dies_is_missed_at_once_and_found_again(house: House) -> None:
    with pytest.raises(openai.APIError) as broken:  # noqa: PT012 (it dies while it answers)
        for number, _ in enumerate(house.stream(max_tokens=1500, logit_bias=NO_END)):
            if number == 3:
                house.server.kill()
    assert broken.value.code == "upstream_unreachable"
    with pytest.raises(openai.InternalServerError) as refused:
        house.ask()
    assert refused.value.status_code in (502, 503)
    assert not house.is_ready()
    assert [model.id for model in house.client.models.list()] == [MODEL]
    house.server.start()
    until(house.is_ready, START_S, "the server is found again")
    assert house.ask(max_tokens=5).choices[0].message.content
    assert [entry.outcome for entry in house.entries(3)][::2] == ["completed", "failed"]
