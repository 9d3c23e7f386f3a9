"""Clients that are slow, silent, greedy or hostile, over real sockets: each is bounded, and the others do not notice."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import httpx
import openai
import pytest

from gateway.protocol.openai import UsageWish
from gateway.settings import ClientLimits
from tests.fakes import Script
from tests.integration.gateway.conftest import MODEL, Running
from tests.integration.gateway.test_gateway import MESSAGES, SAID
from tests.loopback import says
from tests.vllm_stream import chat

HASTY = ClientLimits(head_s=1, body_grace_s=1, body_bytes_per_s=10_000, stall_s=1.5, idle_s=3, connections=300)
CHAT = "/v1/chat/completions"
HALF_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture
def wanted() -> dict[str, object]:
    return {"clients": HASTY, "max_body_bytes": 20_000, "max_media_body_bytes": 60_000}


@pytest.fixture
def client(running: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=running.key, max_retries=0) as made:
        yield made


def connect(running: Running, *, receive_bytes: int = 0) -> socket.socket:
    connection = socket.socket()
    if receive_bytes:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(10)
    connection.connect(("127.0.0.1", running.port))
    return connection


def head(running: Running, length: int, *lines: str) -> bytes:
    fixed = [f"POST {CHAT} HTTP/1.1", "host: x", f"authorization: Bearer {running.key}", f"content-length: {length}"]
    return "\r\n".join([*fixed, *lines, "", ""]).encode()


def read_to_the_end(connection: socket.socket) -> bytes:
    received = b""
    with suppress(ConnectionResetError):
        while data := connection.recv(1 << 20):
            received += data
    return received


def error_in(answer: bytes) -> tuple[int, str]:
    """Status and code of a whole answer."""
    first, _, body = answer.partition(b"\r\n\r\n")
    return int(first.split(b" ")[1]), json.loads(body)["error"]["code"]


def call_s(running: Running) -> float:
    """How long a good call over a new connection takes."""
    began = time.monotonic()
    body = {"model": MODEL, "messages": MESSAGES}
    answer = httpx.post(running.url + CHAT, json=body, headers={"authorization": f"Bearer {running.key}"})
    assert answer.json()["choices"][0]["message"]["content"] == SAID
    return time.monotonic() - began


def until(true: Callable[[], bool], within_s: float = 5) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@contextmanager
def opened(running: Running, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(connect(running)) for _ in range(count)]
        for each in sockets:
            with suppress(ConnectionError):  # the first may have been dropped for the last
                each.sendall(sent)
        yield sockets


@pytest.mark.parametrize("sent", [b"", HALF_HEAD])
def test_more_half_requests_than_connections_hold_up_nobody(running: Running, client: openai.OpenAI, sent: bytes) -> None:
    running.engine.generation, running.engine.every_s = chat(*"이어지는 이야기는 끊기지 않는다"), 0.1
    stream = client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    began = next(iter(stream)).id
    running.engine.generation, running.engine.every_s = type(running.engine)().generation, 0
    with opened(running, 500, sent) as sockets:
        assert max(call_s(running) for _ in range(20)) < 1
        ended = [read_to_the_end(each) for each in sockets]
    told = [answer for answer in ended if answer]
    assert all(error_in(answer) == (408, "request_timeout") for answer in told)
    assert (len(told) > 0) == (sent != b"")
    assert len(told) <= HASTY.connections
    assert {chunk.id for chunk in stream} == {began}


def test_half_bodies_of_strangers_are_answered_before_they_have_come(running: Running) -> None:
    stranger = HALF_HEAD + b"content-length: 10000\r\n\r\n{"
    with opened(running, 100, stranger) as sockets:
        assert max(call_s(running) for _ in range(5)) < 1
        assert {error_in(read_to_the_end(each)) for each in sockets} == {(401, "invalid_api_key")}


def test_body_that_trickles_is_a_408(running: Running) -> None:
    with connect(running) as connection:
        connection.sendall(head(running, 15_000))
        began = time.monotonic()
        with suppress(ConnectionError):
            for _ in range(1000):
                connection.sendall(b" " * 100)
                time.sleep(0.1)
                connection.setblocking(False)
                with suppress(BlockingIOError):
                    if connection.recv(1, socket.MSG_PEEK):
                        break
                connection.settimeout(10)
        assert time.monotonic() - began < 3
        connection.settimeout(10)
        assert error_in(read_to_the_end(connection)) == (408, "request_timeout")


class Counted(tuple[bytes, ...]):
    """Pieces of a script that count how many of them went out."""

    sent = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in super().__iter__():
            yield piece
            self.sent += 1


def long_stream(words: int, word: str) -> Counted:
    return Counted(chat(*[word] * words).events(UsageWish.EVERY_CHUNK))


def ask_for_a_stream(running: Running) -> socket.socket:
    connection = connect(running, receive_bytes=8192)
    body = json.dumps({"model": MODEL, "messages": MESSAGES, "stream": True}).encode()
    connection.sendall(head(running, len(body)) + body)
    return connection


def test_client_that_does_not_read_is_bounded_in_memory_and_time(running: Running) -> None:
    """The engine is held up, not buffered for; then the call ends, and what went out is accounted for."""
    word = "x" * 32_000
    pieces = long_stream(2000, word)
    running.engine.script = Script(pieces=pieces, every_s=0)
    with ask_for_a_stream(running) as connection:
        until(running.server.left.is_set, 15)
        assert pieces.sent < 1000, "of 64 MB, what the kernel's buffers hold"
        (entry,) = running.entries(1)
        received = read_to_the_end(connection).count(word.encode())
    assert (entry.outcome, entry.status) == ("aborted", 200)
    assert entry.duration_s is not None
    assert HASTY.stall_s < entry.duration_s < HASTY.stall_s + 8
    # What was written counts, sent or not: at most one piece on top of a full buffer.
    assert 0 < received <= entry.completion_tokens <= received + 24
    assert entry.completion_tokens <= pieces.sent


def test_clients_that_do_not_read_give_their_places_back(running: Running) -> None:
    running.engine.script = Script(pieces=long_stream(2000, "x" * 32_000), every_s=0)
    with ExitStack() as stack:
        for _ in range(8):  # as many as there are places
            stack.enter_context(ask_for_a_stream(running))
        running.entries(8)
        running.engine.script = None
        assert call_s(running) < 2


def test_client_that_reads_slowly_gets_everything(running: Running) -> None:
    words = 400
    running.engine.script = Script(pieces=long_stream(words, "x" * 32_000), every_s=0)
    received = 0
    with ask_for_a_stream(running) as connection:
        began = time.monotonic()
        while b"[DONE]" not in (data := connection.recv(1 << 20)):
            assert data
            received += len(data)
            time.sleep(max(0, began + received / 4_000_000 - time.monotonic()))
    assert received > words * 32_000
    (entry,) = running.entries(1)
    assert (entry.outcome, entry.completion_tokens) == ("completed", words + 1)
    assert entry.duration_s is not None
    assert entry.duration_s > HASTY.stall_s


def test_client_that_leaves_a_waiting_call_leaves_nothing(running: Running) -> None:
    running.engine.script = Script(head="hangs")
    with ask_for_a_stream(running):
        until(lambda: any(request.path == CHAT for request in running.server.requests))
    began = time.monotonic()
    until(running.server.left.is_set, 1)
    assert time.monotonic() - began < 1
    (entry,) = running.entries(1)
    assert (entry.outcome, entry.status, entry.completion_tokens) == ("aborted", 499, 0)
    running.engine.script = None
    assert call_s(running) < 1


def test_header_of_a_megabyte_is_a_431_that_official_clients_read(running: Running, client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, extra_headers={"x-large": "x" * 1_000_000})
    assert (caught.value.status_code, caught.value.code) == (431, "headers_too_large")
    assert call_s(running) < 1


def image(size: int) -> list[dict[str, object]]:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * size}}]}]


@pytest.mark.parametrize(
    ("messages", "limit"),
    [
        ([{"role": "user", "content": "x" * 19_000}], None),
        ([{"role": "user", "content": "x" * 21_000}], 20_000),
        ([{"role": "user", "content": "x" * 70_000}], 60_000),
        (image(50_000), None),
        (image(61_000), 60_000),
    ],
    ids=["text", "long text", "text beyond all limits", "image", "large image"],
)
@pytest.mark.parametrize("announced", [True, False])
def test_body_limits(running: Running, messages: list[dict[str, object]], limit: int | None, announced: bool) -> None:
    body = json.dumps({"model": MODEL, "messages": messages}).encode()
    content = body if announced else iter([body[:1000], body[1000:30_000], body[30_000:]])
    answer = httpx.post(running.url + CHAT, content=content, headers={"authorization": f"Bearer {running.key}"})
    if limit is None:
        assert answer.status_code == 200
        assert [request.body for request in running.server.requests if request.path == CHAT] == [body]
    else:
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["type"]) == (413, "request_too_large", "invalid_request_error")
        expected = limit if announced or messages[0]["content"] != "x" * 70_000 else 20_000
        assert f"{expected} bytes" in error["message"]


def test_official_client_reads_that_its_body_is_too_large(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x" * 5_000_000}])
    assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "bomb", ["[" * 9_000 + "]" * 9_000, '{"a":' * 2_500 + "0" + "}" * 2_500, "[" * 18_000], ids=["lists", "objects", "open"]
)
def test_nesting_bomb_is_a_400(running: Running, bomb: str, stream: bool) -> None:
    body = f'{{"model":"{MODEL}","stream":{json.dumps(stream)},"messages":{bomb}}}'
    answer = httpx.post(running.url + CHAT, content=body, headers={"authorization": f"Bearer {running.key}"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert call_s(running) < 1


@pytest.mark.parametrize("wanted", [{}])
def test_a_hundred_thousand_messages_are_refused_and_hold_up_nobody(running: Running) -> None:
    """At the default limits, by which their three megabytes are not too large a body."""
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "x"}] * 100_000})
    answers: list[httpx.Response] = []
    headers = {"authorization": f"Bearer {running.key}"}
    sending = threading.Thread(target=lambda: answers.append(httpx.post(running.url + CHAT, content=body, headers=headers)))
    sending.start()
    assert max(call_s(running) for _ in range(5)) < 1
    sending.join()
    error = answers[0].json()["error"]
    assert (answers[0].status_code, error["code"], error["param"]) == (400, "invalid_request", "messages")


def test_what_is_not_http_is_told_so(running: Running) -> None:
    for sent in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/1.1\nhost: x\n\n", b"\x00" * 100_000):
        with connect(running) as connection:
            connection.sendall(sent)
            assert error_in(read_to_the_end(connection)) == (400, "invalid_request")


def test_client_that_asks_and_asks_and_never_reads_is_bounded(running: Running) -> None:
    """Small questions with large answers: no more of them are answered than its buffers hold, and then it is over."""
    with connect(running, receive_bytes=8192) as connection:
        with suppress(ConnectionError):
            for _ in range(20_000):
                connection.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n")
        began = time.monotonic()
        time.sleep(HASTY.stall_s)
        answers = read_to_the_end(connection).count(b"HTTP/1.1 200 OK")
        assert time.monotonic() - began < 10
    assert 0 < answers < 1000
    assert call_s(running) < 1


def test_engine_answer_that_is_large_reaches_a_client_that_reads_slowly(running: Running) -> None:
    whole = json.dumps({"id": "1", "object": "chat.completion", "choices": [], "x": "y" * 20_000_000}).encode()
    running.engine.script = says(whole)
    body = json.dumps({"model": MODEL, "messages": MESSAGES}).encode()
    with connect(running, receive_bytes=65_536) as connection:
        connection.sendall(head(running, len(body), "connection: close") + body)
        received = 0
        began = time.monotonic()
        while data := connection.recv(1 << 20):
            received += len(data)
            time.sleep(max(0, began + received / 4_000_000 - time.monotonic()))
    assert received > len(whole)
