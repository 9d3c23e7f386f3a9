"""Requests as they should be, however the network cuts them: what the app sees of them, and in which order they are answered."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.asgi import Receive, Scope, Send
from tests.fakes import VirtualLoop
from tests.unit.gateway.client_connection.wire import Asked, Echo, Wire, answer, request, whole_body
from tests.vllm_stream import cut

HOST = (b"host", b"x")
LENGTH = request("POST", "/length", b"hello", "Authorization: Bearer dm-1")
CHUNKED = request("POST", "/chunked", chunks=[b"he", b"llo"])
EXTENDED = (
    b"POST /extended HTTP/1.1\r\nHOST:x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'2;note=x\r\nhe\r\n3;q="1"\r\nllo\r\n0\r\nauthorization: Bearer dm-2\r\n\r\n'
)
BARE = request("GET", "/bare?a=1&b=%20")
UPGRADE = request("POST", "/upgrade", b"hello", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
LEADING = b"\r\n\r\n" + BARE
ALL = (LENGTH, CHUNKED, BARE, UPGRADE, LEADING)


async def ask_in_pieces(pieces: list[bytes], *, at_once: bool) -> tuple[list[Asked], bytes]:
    app = Echo()
    wire = Wire(app)
    if at_once:
        wire.feed(*pieces)
        await wire.settle()
    else:
        await wire.ask(*pieces)
    assert not wire.transport.is_closing()
    assert wire.transport.reading
    return app.asked, wire.written


def ask_virtually(pieces: list[bytes], *, at_once: bool = True) -> tuple[list[Asked], bytes]:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(ask_in_pieces(pieces, at_once=at_once))


@pytest.mark.parametrize("asked", ALL)
def test_request_is_the_same_at_every_cut(asked: bytes) -> None:
    whole = ask_virtually([asked])
    assert len(whole[0]) == 1
    for point in range(1, len(asked)):
        assert ask_virtually([asked[:point], asked[point:]]) == whole
    assert ask_virtually([asked[at : at + 1] for at in range(len(asked))], at_once=False) == whole


@given(asked=st.lists(st.sampled_from(ALL), min_size=1, max_size=5), points=st.lists(st.integers(0, 2000)), at_once=st.booleans())
def test_requests_are_answered_in_their_order_however_they_come(asked: list[bytes], points: list[int], at_once: bool) -> None:
    one_by_one = [ask_virtually([each]) for each in asked]
    found, written = ask_virtually(cut(b"".join(asked), points), at_once=at_once)
    assert found == [request for requests, _ in one_by_one for request in requests]
    assert written == b"".join(answered for _, answered in one_by_one)


async def test_app_sees_what_the_client_sent() -> None:
    app = Echo()
    wire = Wire(app)
    await wire.ask(LENGTH, CHUNKED, BARE)
    authorization = (b"authorization", b"Bearer dm-1")
    assert app.asked == [
        Asked("POST", "/length", b"", (HOST, authorization, (b"content-length", b"5")), b"hello"),
        Asked("POST", "/chunked", b"", (HOST, (b"transfer-encoding", b"chunked")), b"hello"),
        Asked("GET", "/bare", b"a=1&b=%20", (HOST,), b""),
    ]
    assert wire.statuses == [200, 200, 200]


async def test_trailers_are_no_headers() -> None:
    app = Echo()
    wire = Wire(app)
    await wire.ask(EXTENDED)
    assert app.asked == [Asked("POST", "/extended", b"", (HOST, (b"transfer-encoding", b"chunked")), b"hello")]


async def test_scope_says_who_and_how() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await answer(send, b"")

    await Wire(app, peer=("::1", 50000, 0, 0)).ask(BARE)
    await Wire(app, peer="").ask(BARE)
    assert [scope["client"] for scope in seen] == [("::1", 50000), None]
    assert seen[0]["server"] == ("10.0.0.1", 8080)
    assert (seen[0]["type"], seen[0]["scheme"], seen[0]["http_version"]) == ("http", "http", "1.1")


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/a%20b/%ED%95%9C?q=%41", "/a b/한", b"q=%41"),
        ("/%FF%2e", "/\ufffd.", b""),
        ("/a?b?c", "/a", b"b?c"),
        ("//x/y", "//x/y", b""),
        ("http://gateway:8080/v1/models?x=1", "/v1/models", b"x=1"),
        ("http://gateway:8080", "/", b""),
        ("http://gateway?x=1", "/", b"x=1"),
        ("*", "*", b""),
    ],
)
async def test_target_is_read_as_the_standard_has_it(target: str, path: str, query: bytes) -> None:
    app = Echo()
    await Wire(app).ask(request("OPTIONS", target))
    assert [(asked.path, asked.query) for asked in app.asked] == [(path, query)]


async def test_upgrade_is_not_taken_and_loses_nothing() -> None:
    """Java's HTTP client sends its first request so; the body behind such a head must not be lost."""
    app = Echo()
    wire = Wire(app)
    await wire.ask(BARE + UPGRADE + CHUNKED)
    assert [(asked.path, asked.body) for asked in app.asked] == [("/bare", b""), ("/upgrade", b"hello"), ("/chunked", b"hello")]
    assert wire.statuses == [200, 200, 200]
    assert not wire.transport.is_closing()


async def test_nothing_of_a_request_is_left_for_the_next() -> None:
    app = Echo()
    wire = Wire(app)
    await wire.ask(LENGTH, BARE)
    assert app.asked[1] == Asked("GET", "/bare", b"a=1&b=%20", (HOST,), b"")


async def test_pipelined_requests_run_one_at_a_time() -> None:
    go = [asyncio.Event() for _ in range(3)]
    begun: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        number = int(scope["path"][1:])
        begun.append(number)
        await go[number].wait()
        await answer(send, b"%d" % number)

    wire = Wire(app)
    await wire.ask(*(request(path=f"/{number}") for number in range(3)))
    for number in range(3):
        assert begun == list(range(number + 1))
        go[number].set()
        await wire.settle()
    assert [found.body for found in wire.answers] == [b"0", b"1", b"2"]


async def test_more_pipelined_than_a_few_are_not_answered_and_the_client_is_told() -> None:
    """What waits takes memory; clients that pipeline have to expect this (RFC 9112, 9.3.2)."""
    wire = Wire(Echo())
    await wire.ask(b"".join(request(path=f"/{number}") for number in range(5000)))
    assert [found.body for found in wire.answers] == [b"/%d" % number for number in range(9)]
    assert ["connection" in found.headers for found in wire.answers] == [False] * 8 + [True]
    assert wire.transport.ended


async def test_pipelined_bodies_are_read_only_so_far_ahead() -> None:
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        await answer(send, b"%d" % len(await whole_body(receive) or b""))

    wire = Wire(app)
    upload = request("POST", body=b"x" * 300_000)
    await wire.ask(BARE, upload[:100_000])
    assert not wire.transport.reading
    go.set()
    await wire.settle()
    await wire.ask(upload[100_000:])
    assert [found.body for found in wire.answers] == [b"0", b"300000"]


async def test_body_is_not_read_faster_than_the_app_takes_it() -> None:
    go = asyncio.Event()
    taken = b""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal taken
        while True:
            await go.wait()
            go.clear()
            message = await receive()
            taken += message["body"]
            if not message["more_body"]:
                await answer(send, b"")
                return

    wire = Wire(app)
    upload = request("POST", body=b"x" * 200_000)
    await wire.ask(upload[:80_000])
    assert not wire.transport.reading
    go.set()
    await wire.settle()
    assert wire.transport.reading
    await wire.ask(upload[80_000:])
    assert not wire.transport.reading
    go.set()
    await wire.settle()
    assert taken == b"x" * 200_000
    assert (wire.transport.reading, wire.statuses) == (True, [200])


@pytest.mark.parametrize("app_reads", [True, False])
async def test_connection_reads_on_after_a_large_body_that_came_at_once(app_reads: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if app_reads:
            await whole_body(receive)
        await answer(send, b"")

    wire = Wire(app)
    await wire.ask(request("POST", body=b"x" * 200_000), BARE)
    assert wire.statuses == [200, 200]


async def test_many_small_chunks_cost_no_more_than_their_bytes() -> None:
    wire = Wire(Echo())
    size = 20_000
    await wire.ask(request("POST", chunks=[b"x"] * size))
    assert wire.answers[0].body == b"x" * size


async def test_client_that_waits_for_continue_is_asked_to_go_on() -> None:
    app = Echo()
    wire = Wire(app)
    upload = request("POST", "/", b"hello", "Expect: 100-Continue")
    await wire.ask(upload[:-5])
    assert wire.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    await wire.ask(upload[-5:])
    assert wire.written.count(b"100 Continue") == 1
    assert app.asked[0].body == b"hello"


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_nobody_is_asked_to_go_on_who_already_does_or_cannot_understand(version: str) -> None:
    wire = Wire(Echo())
    upload = request("POST", "/", b"hello", "Expect: 100-continue").replace(b"HTTP/1.1", f"HTTP/{version}".encode())
    begin = -5 if version == "1.0" else -4
    await wire.ask(upload[:begin], upload[begin:])
    assert b"100" not in wire.written
    assert wire.answers[0].body == b"hello"


async def test_waiting_for_a_body_may_be_given_up_and_begun_again() -> None:
    """Starlette does so to see whether the client is still there."""
    messages = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 1)
        messages.append(await receive())

    wire = Wire(app)
    upload = request("POST", body=b"hello")
    wire.feed(upload[:-5])
    await asyncio.sleep(2)
    await wire.ask(upload[-5:])
    assert messages == [{"type": "http.request", "body": b"hello", "more_body": False}]
