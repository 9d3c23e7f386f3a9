"""The whole gateway as applications meet it: the official client, real sockets, a real ledger."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from gateway.protocol.openai import UsageWish
from tests.fakes import Script
from tests.integration.gateway.conftest import MODEL, Engine, Running
from tests.loopback import says
from tests.vllm_stream import chat, completion_tokens_in

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "안녕?"}]
SAID = "안녕하세요. 대문입니다"


@pytest.fixture
def client(running: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key=running.key, max_retries=0)


def test_official_client_gets_a_whole_answer(running: Running, client: openai.OpenAI) -> None:
    with client:
        answer = client.chat.completions.create(model=MODEL, messages=MESSAGES)
        assert answer.choices[0].message.content == SAID
        assert answer.usage is not None
        assert [model.id for model in client.models.list()] == [MODEL]
    (entry,) = running.entries(1)
    assert (entry.tenant, entry.project, entry.replica) == ("anna", "chatbot", running.server.url)
    assert (entry.prompt_tokens, entry.completion_tokens) == (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    assert (entry.outcome, entry.stream, entry.status) == ("completed", False, 200)


@pytest.mark.parametrize("include_usage", [False, True])
def test_official_client_streams(running: Running, client: openai.OpenAI, include_usage: bool) -> None:
    with client:
        chunks = list(
            client.chat.completions.create(
                model=MODEL,
                messages=MESSAGES,
                stream=True,
                stream_options={"include_usage": include_usage},
            )
        )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == SAID
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [include_usage]
    (entry,) = running.entries(1)
    assert (entry.prompt_tokens, entry.completion_tokens, entry.outcome) == (7, 6, "completed")


async def test_official_async_client_streams_many_at_once(running: Running) -> None:
    async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key=running.key, max_retries=0) as client:

        async def talk() -> str:
            stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        assert await asyncio.gather(*(talk() for _ in range(20))) == [SAID] * 20
    entries = await asyncio.to_thread(running.entries, 20)
    assert {(entry.completion_tokens, entry.outcome) for entry in entries} == {(6, "completed")}
    assert len({entry.id for entry in entries}) == 20


def test_official_client_reads_our_errors(running: Running, client: openai.OpenAI) -> None:
    with client, openai.OpenAI(base_url=f"{running.url}/v1", api_key="dm-wrong", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError) as unknown:
            stranger.chat.completions.create(model=MODEL, messages=MESSAGES)
        with pytest.raises(openai.NotFoundError) as missing:
            client.chat.completions.create(model="gpt-9", messages=MESSAGES)
    assert unknown.value.code == "invalid_api_key"
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    assert missing.value.request_id is not None
    assert MODEL in missing.value.message


def test_official_client_raises_on_a_stream_that_breaks_off(running: Running, client: openai.OpenAI) -> None:
    running.engine.script = Script(pieces=tuple(chat("하나", "둘").events(UsageWish.EVERY_CHUNK)[:2]), end="reset")
    said = ""
    with client, pytest.raises(openai.APIError) as caught:  # noqa: PT012 (what came before the error matters too)
        for chunk in client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True):
            said += chunk.choices[0].delta.content or ""
    assert said == "하나"
    assert caught.value.code == "upstream_unreachable"
    (entry,) = running.entries(1)
    assert (entry.outcome, entry.error_code, entry.completion_tokens) == ("failed", "upstream_unreachable", 1)


def ask_and_half_close(running: Running, chunks: int) -> bytes:
    """Stream over a bare socket; stop sending after some chunks, then read to the end: all that a client could receive."""
    body = json.dumps({"model": MODEL, "messages": MESSAGES, "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {running.key}\r\n"
    received = b""
    with socket.create_connection(("127.0.0.1", running.port), timeout=5) as connection:
        connection.sendall(head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body)
        left = False
        while data := connection.recv(65536):
            received += data
            if not left and received.count(b"data: ") >= chunks:
                left = True
                connection.shutdown(socket.SHUT_WR)
    return received


@pytest.mark.parametrize("chunks", [1, 2, 17, 60])
def test_abandoned_stream_is_charged_what_its_client_received(running: Running, chunks: int) -> None:
    long = chat(*(f"낱말{number} " for number in range(400)))
    running.engine.generation = long
    received = ask_and_half_close(running, chunks)
    events = re.findall(rb"data: .*", received)
    assert chunks <= len(events) < 400
    (entry,) = running.entries(1)
    assert entry.outcome == "aborted"
    assert entry.completion_tokens == completion_tokens_in(events, long)
    assert entry.prompt_tokens == 7


def test_engine_hears_of_an_abandoned_stream(running: Running) -> None:
    running.engine.script = Script(pieces=tuple(chat("하나").events(UsageWish.EVERY_CHUNK)[:2]), end="hangs")
    ask_and_half_close(running, 2)
    (entry,) = running.entries(1)
    assert (entry.outcome, entry.completion_tokens) == ("aborted", 1)
    until = time.monotonic() + 2
    while not running.server.left.is_set():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_everything_but_calls_answers_too(running: Running) -> None:
    with httpx.Client(base_url=running.url) as http:
        assert http.get("/health/live").json() == {"live": True}
        assert http.get("/health/ready").json() == {"ready": True, "waiting_for": []}
        assert http.get("/nothing").json()["error"]["code"] == "not_found"
        assert http.get("/v1/chat/completions").headers["allow"] == "POST"
        assert "/v1/models" in http.get("/openapi.json").json()["paths"]


def test_body_over_the_limit_is_refused_with_and_without_its_length(running: Running) -> None:
    too_much = b" " * (16 * 1024 * 1024 + 1)
    with httpx.Client(base_url=running.url, headers={"authorization": f"Bearer {running.key}"}) as http:
        for content in (too_much, iter([too_much[: 8 << 20], too_much[8 << 20 :]])):
            answer = http.post("/v1/completions", content=content)
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_replica_that_dies_takes_no_calls_until_it_is_back(engine: Engine, running: Running, client: openai.OpenAI) -> None:
    engine.script = Script(head="reset")
    with client:
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model=MODEL, messages=MESSAGES)
        assert caught.value.code in ("upstream_unreachable", "queue_timeout")
        engine.script = says(b'{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[]}')
        assert client.chat.completions.create(model=MODEL, messages=MESSAGES).id == "1"
