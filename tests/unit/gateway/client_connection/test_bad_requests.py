"""What is no request, or too much of one: an error in OpenAI's shape, then the end; never a hang, never an exception."""

from __future__ import annotations

import asyncio

import pytest

from gateway.protocol.asgi import Receive, Scope, Send
from tests.unit.gateway.client_connection.malformed import MALFORMED, POST
from tests.unit.gateway.client_connection.wire import LIMITS, Echo, Wire, answer, piece, request, start, whole_body
from tests.vllm_stream import cut

GET = request()


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("byte_by_byte", [False, True])
async def test_malformed_request_is_a_400_and_the_end(name: str, byte_by_byte: bool) -> None:
    app = Echo()
    wire = Wire(app)
    sent = MALFORMED[name]
    await wire.ask(*([sent[at : at + 1] for at in range(len(sent))] if byte_by_byte else [sent]))
    (refused,) = wire.answers
    assert (refused.status, refused.code) == (400, "invalid_request")
    assert refused.headers["connection"] == "close"
    assert wire.transport.ended
    assert (app.asked, wire.tasks) == ([], set())
    await asyncio.sleep(6)
    assert wire.is_quiet


async def test_refusal_is_in_the_clients_language() -> None:
    wire = Wire(Echo())
    await wire.ask(b"GET / HTTP/1.1\r\naccept-language: ko-KR\r\n\r\n")
    assert "올바른" in wire.answers[0].body.decode()


async def test_what_was_asked_before_a_malformed_request_is_answered_first() -> None:
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        await answer(send, scope["path"].encode())

    wire = Wire(app)
    await wire.ask(request(path="/1") + request(path="/2") + b"nonsense", GET)
    assert wire.written == b""
    go.set()
    await wire.settle()
    assert [(found.status, found.body[:2]) for found in wire.answers] == [(200, b"/1"), (200, b"/2"), (400, b'{"')]
    assert wire.transport.ended


async def test_pipelined_request_with_a_broken_body_never_starts() -> None:
    go = asyncio.Event()
    begun: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.append(scope["path"])
        await go.wait()
        await answer(send, b"")

    wire = Wire(app)
    await wire.ask(request(path="/1") + MALFORMED["bad chunk size"])
    go.set()
    await wire.settle()
    assert (begun, wire.statuses) == (["/1"], [200, 400])


async def test_body_that_breaks_under_a_running_answer_ends_with_the_answer() -> None:
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(piece(b"he", more=True))
        await go.wait()
        await send(piece(b"llo"))

    wire = Wire(app)
    await wire.ask(POST + b"transfer-encoding: chunked\r\n\r\n", b"xyz\r\n")
    await asyncio.sleep(100)  # and no deadline of the body's cuts it off
    go.set()
    await wire.settle()
    assert [(found.status, found.body, found.whole) for found in wire.answers] == [(200, b"hello", True)]
    await asyncio.sleep(6)
    assert wire.is_quiet


async def test_body_that_breaks_while_the_app_reads_it_looks_like_a_client_that_left() -> None:
    bodies: list[bytes | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        bodies.append(await whole_body(receive))
        await answer(send, b"into the void")

    wire = Wire(app)
    await wire.ask(POST + b"transfer-encoding: chunked\r\n\r\n", b"xyz\r\n")
    assert (bodies, wire.statuses) == ([None], [400])


FIELD = b"a: %b\r\n" % (b"x" * 57)  # counts for 58 + 32 bytes


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"x" * 1_000_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"x" * 1_000_000 + b": a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\na: " + b" " * 1_000_000 + b"x\r\n\r\n",
        b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n" + FIELD * 10_000,
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a:b\r\n" * 120 + b"\r\n",  # many small fields take much memory for few bytes
        b"\r\n" * 100_000 + b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: " + b"x" * 1_000_000,
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3;" + b"x" * 1_000_000,
    ],
    ids=["value", "name", "spaces", "address", "endless lines", "small lines", "empty lines", "trailer", "chunk's note"],
)
@pytest.mark.parametrize("size", [1, 1000, 1500, 65536, 2_000_000])
async def test_head_over_the_limit_is_a_431(head: bytes, size: int) -> None:
    wire = Wire(Echo())
    fed = 0
    for at in range(0, len(head), size):
        if wire.transport.ended:
            break
        wire.feed(head[at : at + size])
        fed = at + size
    (refused,) = wire.answers
    assert (refused.status, refused.code) == (431, "headers_too_large")
    assert "4096" in refused.body.decode()
    assert fed <= 2 * (LIMITS.head_bytes + size)
    await asyncio.sleep(6)
    assert wire.is_quiet


def test_limit_is_the_same_however_the_head_is_cut() -> None:
    async def status(head: bytes, points: list[int]) -> int:
        wire = Wire(Echo())
        wire.feed(*cut(head, points))
        await wire.settle()
        return wire.statuses[0]

    spare = LIMITS.head_bytes - len(b"/hostx") - 32 - len(b"a") - 32
    fits, does_not = (request("GET", "/", b"", "a: " + "x" * size) for size in (spare, spare + 1))
    for points in ([], [4000], [20, 2000, 4095], list(range(4200)), [len(fits) - 1], [len(fits) - 2], [len(fits) - 3]):
        assert asyncio.run(status(fits, points)) == 200
        assert asyncio.run(status(does_not, points)) == 431


async def test_large_bodies_around_it_do_not_count_as_head() -> None:
    app = Echo()
    wire = Wire(app)
    upload = request("POST", "/", b"x" * 50_000)
    data = upload + GET + upload + GET
    await wire.ask(*(data[at : at + 30_000] for at in range(0, len(data), 30_000)), b"\r\n", GET)
    assert wire.statuses == [200] * 5


async def test_upgrade_to_nonsense_is_refused_like_any() -> None:
    wire = Wire(Echo())
    await wire.ask(request("POST", "/", b"hello", "Connection: Upgrade", "Upgrade: h2c") + b"nonsense")
    assert wire.statuses == [200, 400]
