"""Waiting for a place in a real gateway process with one: over real sockets, to the byte, and as official clients read it."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anthropic
import httpx
import openai
import pytest

from gateway.entry import Entry
from gateway.protocol.openai import UsageWish
from tests.fakes import Script
from tests.gateway_process import GatewayProcess, gateway_process
from tests.integration.gateway.conftest import MODEL, Engine
from tests.integration.gateway.test_gateway import MESSAGES, SAID
from tests.loopback import LoopbackServer, Request, says
from tests.vllm_stream import chat

BEAT_S = 0.2
EVENTS = chat("안녕", "하세요", ". ", "대문", "입니다").events
SILENCE_S = 1.0
COMMENT = rb": daemun position=1 expected_wait_s=\d+\n\n"


@pytest.fixture
def running(engine_server: LoopbackServer, tmp_path: Path) -> Iterator[GatewayProcess]:
    settings = {
        "QUEUE__PLACES_PER_REPLICA": "1",
        "QUEUE__PROMPT_S": "30",
        "QUEUE__PATIENCE_S": "3",
        "QUEUE__HEARTBEAT_S": str(BEAT_S),
    }
    with gateway_process(engine_server.url, tmp_path, **settings) as made:
        yield made


@contextmanager
def the_only_place_taken(running: GatewayProcess, engine: Engine, *, for_s: float = SILENCE_S) -> Iterator[None]:
    """By a stream whose engine is silent for so long before its first event; others are answered at once."""
    usual = engine.act
    events = tuple(EVENTS(UsageWish.EVERY_CHUNK))
    slow = Script(pieces=(b"".join(events),), every_s=for_s)
    first = threading.Event()

    def act(request: Request) -> Script:
        if request.method == "POST" and not first.is_set():
            first.set()
            return slow
        return usual(request)

    engine.act = act  # type: ignore[method-assign]
    holding = threading.Thread(target=raw, args=(running, body()))
    holding.start()
    assert first.wait(5)
    yield
    holding.join()


def body() -> bytes:
    return json.dumps({"model": MODEL, "messages": MESSAGES, "stream": True}).encode()


def sent(running: GatewayProcess, content: bytes, *headers: str) -> socket.socket:
    """A connection that has sent this request."""
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: daemun", f"authorization: Bearer {running.key}", *headers]
    connection = socket.create_connection(("127.0.0.1", running.port), timeout=10)
    connection.sendall("\r\n".join([*lines, f"content-length: {len(content)}", "", ""]).encode() + content)
    return connection


def raw(running: GatewayProcess, content: bytes, *headers: str) -> tuple[bytes, bytes]:
    """Head and body of the answer, the body without its chunks' frames."""
    with sent(running, content, "connection: close", *headers) as connection:
        answer = b""
        while data := connection.recv(65536):
            answer += data
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head:
        return head, rest
    unframed = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        unframed, rest = unframed + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return head, unframed


def test_waiting_stream_to_the_byte(running: GatewayProcess, engine: Engine) -> None:
    with the_only_place_taken(running, engine):
        head, received = raw(running, body())
    lines = head.lower().split(b"\r\n")
    assert lines[0] == b"http/1.1 200 ok"
    assert {b"content-type: text/event-stream; charset=utf-8", b"cache-control: no-cache", b"x-accel-buffering: no"} <= set(lines)
    assert {b"x-daemun-queue-position: 1", b"x-daemun-service-tier: paid"} <= set(lines)
    comments = re.match(b"(?:%b)+" % COMMENT, received)
    assert comments is not None
    assert 3 <= comments[0].count(b"\n\n") <= SILENCE_S / BEAT_S
    assert received[comments.end() :] == b"".join(EVENTS(UsageWish.NONE))


def test_official_openai_client_does_not_notice_that_it_waited(running: GatewayProcess, engine: Engine) -> None:
    with running.client as client, the_only_place_taken(running, engine):
        chunks = list(client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == SAID
    assert any(entry.queue_s and entry.queue_s > BEAT_S for entry in ended(running, 2))


def test_official_anthropic_client_does_not_notice_either(running: GatewayProcess, engine: Engine) -> None:
    message: dict[str, object] = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": MODEL,
        "stop_reason": None,
    }
    usage = {"input_tokens": 1, "output_tokens": 0}
    start = json.dumps({"type": "message_start", "message": message | {"stop_sequence": None, "usage": usage}})
    events = f'event: message_start\ndata: {start}\n\nevent: message_stop\ndata: {{"type":"message_stop"}}\n\n'
    with the_only_place_taken(running, engine):
        engine.script = Script(pieces=(events.encode(),))
        with anthropic.Anthropic(base_url=running.url, api_key=running.key, max_retries=0) as client:
            stream = client.messages.create(model=MODEL, max_tokens=9, messages=[{"role": "user", "content": "?"}], stream=True)
            assert [event.type for event in stream] == ["message_start", "message_stop"]
    assert any(entry.queue_s and entry.queue_s > BEAT_S for entry in ended(running, 2))


def test_official_client_raises_where_its_patience_ends(running: GatewayProcess, engine: Engine) -> None:
    with running.client as client, the_only_place_taken(running, engine):
        with pytest.raises(openai.APIError) as streamed:
            list(client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, extra_headers=max_wait("0.5")))
        with pytest.raises(openai.InternalServerError) as whole:
            client.chat.completions.create(model=MODEL, messages=MESSAGES, extra_headers=max_wait("0.1"))
        with pytest.raises(openai.InternalServerError) as at_once:
            client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, extra_headers=max_wait("0.1"))
    assert streamed.value.code == "queue_timeout"
    for early in (whole, at_once):
        assert early.value.status_code == 503
        assert early.value.code in ("queue_timeout", "server_overloaded"), "evicted, or known before that it would be"
        assert int(early.value.response.headers["retry-after"]) >= 1


def max_wait(seconds: str) -> dict[str, str]:
    return {"x-daemun-max-wait-s": seconds}


def test_client_that_leaves_the_queue_frees_its_place_at_once(running: GatewayProcess, engine: Engine) -> None:
    with the_only_place_taken(running, engine):
        with sent(running, body()) as leaving:
            assert b"200 OK" in leaving.recv(65536)
            assert waiting(running) == 1
        until = time.monotonic() + 0.5
        while waiting(running):
            assert time.monotonic() < until
    assert sorted(entry.outcome for entry in ended(running, 2)) == ["aborted", "completed"]


def waiting(running: GatewayProcess) -> int:
    shown = httpx.get(f"{running.url}/internal/demand").json()["models"][MODEL]
    return sum(tier["waiting"] for tier in shown["tiers"].values())


def ended(running: GatewayProcess, count: int) -> list[Entry]:
    """The entries, once there are so many: the mover takes them into the database."""
    until = time.monotonic() + 5
    while len(entries := running.entries()) < count:
        assert time.monotonic() < until
        time.sleep(0.05)
    return entries


def test_model_without_a_replica_is_waited_for_with_words(running: GatewayProcess, engine: Engine) -> None:
    """As after a scale to zero."""
    usual = engine.act
    engine.act = lambda request: says(b"", 503) if request.path == "/health" else usual(request)  # type: ignore[method-assign]
    until = time.monotonic() + 5
    while running.is_ready():
        assert time.monotonic() < until
        time.sleep(0.05)
    threading.Timer(3.5 * BEAT_S, lambda: setattr(engine, "act", usual)).start()
    head, received = raw(running, body())
    assert head.startswith(b"HTTP/1.1 200 ")
    assert received.startswith(b": daemun position=1 expected_wait_s=")
    assert received.endswith(b"".join(EVENTS(UsageWish.NONE)))
