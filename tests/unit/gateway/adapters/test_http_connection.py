"""The HTTP connection without a socket: fed byte by byte, with a transport that only remembers, in virtual time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.http_connection import HttpConnection
from gateway.errors import UpstreamTimeout, UpstreamUnreachable

LENGTH = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\nhe\r\n3;note=x\r\nllo\r\n0\r\nx-trailer: 1\r\n\r\n"
)
TO_THE_END = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nhello"
EARLY = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"


class FakeTransport(asyncio.Transport):
    """Remembers what is done to it; closing it tells the protocol at once."""

    def __init__(self, protocol: HttpConnection) -> None:
        super().__init__()
        self.written = b""
        self.reading = True
        self.aborted = False
        self._protocol = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.aborted

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def abort(self) -> None:
        if not self.aborted:
            self.aborted = True
            self._protocol.connection_lost(None)


class Wire:
    """A connection with its transport, and an exchange under way."""

    def __init__(self) -> None:
        self.connection = HttpConnection()
        self.transport = FakeTransport(self.connection)
        self.connection.connection_made(self.transport)

    async def ask(self, timeout_s: float = 5.0) -> asyncio.Task[None]:
        asking = asyncio.create_task(self.connection.exchange(b"GET", timeout_s))
        await asyncio.sleep(0)
        return asking

    def feed(self, data: bytes, sizes: list[int] | None = None) -> None:
        for size in sizes or []:
            self.connection.data_received(data[:size])
            data = data[size:]
        if data:
            self.connection.data_received(data)

    async def whole(self) -> bytes:
        body = b""
        while piece := await self.connection.piece(5.0):
            body += piece
        return body


@pytest.mark.parametrize("answer", [LENGTH, CHUNKED, EARLY + LENGTH, EARLY + CHUNKED])
async def test_answer_is_read_byte_by_byte_and_the_connection_may_be_kept(answer: bytes) -> None:
    wire = Wire()
    asking = await wire.ask()
    wire.feed(answer, [1] * len(answer))
    await asking
    assert wire.transport.written == b"GET"
    assert wire.connection.status == 200
    assert await wire.whole() == b"hello"
    assert wire.connection.reusable


@given(sizes=st.lists(st.integers(1, 40), max_size=30), answer=st.sampled_from([LENGTH, CHUNKED, EARLY + CHUNKED]))
def test_answer_does_not_depend_on_how_it_is_cut(sizes: list[int], answer: bytes) -> None:
    async def read() -> bytes:
        wire = Wire()
        asking = await wire.ask()
        wire.feed(answer, sizes)
        await asking
        return await wire.whole()

    assert asyncio.run(read()) == b"hello"


async def test_connection_serves_one_exchange_after_the_other() -> None:
    wire = Wire()
    for answer in (LENGTH, CHUNKED, LENGTH):
        asking = await wire.ask()
        wire.feed(answer)
        await asking
        assert await wire.whole() == b"hello"
        assert wire.connection.reusable


async def test_answer_without_a_length_ends_with_the_connection() -> None:
    wire = Wire()
    asking = await wire.ask()
    wire.feed(TO_THE_END)
    await asking
    wire.connection.connection_lost(None)
    assert await wire.whole() == b"hello"
    assert not wire.connection.reusable


@pytest.mark.parametrize("cut", [0, 10, len(LENGTH) - 1])
@pytest.mark.parametrize("reset", [None, ConnectionResetError()])
async def test_answer_cut_short_is_an_error_after_what_came(cut: int, reset: Exception | None) -> None:
    wire = Wire()
    asking = await wire.ask()
    if cut:
        wire.feed(LENGTH[:cut])
    wire.connection.connection_lost(reset)
    if b"\r\n\r\n" not in LENGTH[:cut]:
        with pytest.raises(UpstreamUnreachable):
            await asking
    else:
        await asking
        assert await wire.connection.piece(5.0) == b"hell"
        with pytest.raises(UpstreamUnreachable):
            await wire.connection.piece(5.0)
    assert not wire.connection.reusable


async def test_reset_of_an_answer_without_a_length_is_an_error() -> None:
    wire = Wire()
    asking = await wire.ask()
    wire.feed(TO_THE_END)
    await asking
    wire.connection.connection_lost(ConnectionResetError())
    assert await wire.connection.piece(5.0) == b"hello"
    with pytest.raises(UpstreamUnreachable):
        await wire.connection.piece(5.0)


@pytest.mark.parametrize("nonsense", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"])
async def test_what_is_no_http_is_unreachable(nonsense: bytes) -> None:
    wire = Wire()
    asking = await wire.ask()
    wire.feed(nonsense)
    with pytest.raises(UpstreamUnreachable):
        await asking
    assert wire.transport.aborted


async def test_connection_close_is_respected() -> None:
    wire = Wire()
    asking = await wire.ask()
    wire.feed(LENGTH.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
    await asking
    assert await wire.whole() == b"hello"
    assert not wire.connection.reusable


@pytest.mark.parametrize("at_once", [True, False])
async def test_second_answer_to_one_request_reaches_nobody(at_once: bool) -> None:
    wire = Wire()
    asking = await wire.ask()
    second = LENGTH.replace(b"hello", b"WRONG")
    wire.feed(LENGTH + second, None if at_once else [len(LENGTH)])
    await asking
    assert await wire.whole() == b"hello"
    assert not wire.connection.reusable


async def test_slow_client_stops_the_reading_and_costs_no_timeout() -> None:
    wire = Wire()
    asking = await wire.ask()
    wire.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    await asking
    wire.feed(b"x" * 300_000)
    assert not wire.transport.reading
    await asyncio.sleep(3600)
    assert await wire.connection.piece(5.0) == b"x" * 300_000
    assert wire.transport.reading


async def test_what_comes_is_taken_in_that_moment_and_what_is_declined_is_a_piece_of_its_own() -> None:
    wire = Wire()
    asking = await wire.ask()
    wire.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n")
    await asking
    shown: list[bytes] = []

    def take(data: bytes) -> bool:
        shown.append(data)
        return data != b"no"

    waiting = asyncio.create_task(wire.connection.piece(5.0, take))
    await asyncio.sleep(0)
    wire.feed(b"first")
    wire.feed(b"second")
    assert shown == [b"first", b"second"]
    wire.feed(b"no")
    wire.feed(b"behind")  # before anybody has woken
    assert await waiting == b"no"
    assert shown == [b"first", b"second", b"no"]
    assert await wire.connection.piece(5.0, take) == b"behind"
    wire.feed(b"!")
    assert not wire.connection.reusable, "there is more to read"
    assert await wire.connection.piece(5.0, take) == b"!"
    assert await wire.connection.piece(5.0, take) == b""
    assert wire.connection.reusable


async def test_what_is_taken_ends_the_silence() -> None:
    loop = asyncio.get_running_loop()
    wire = Wire()
    asking = await wire.ask()
    wire.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n")
    await asking
    waiting = asyncio.create_task(wire.connection.piece(7.0, lambda data: True))
    for _ in range(3):
        await asyncio.sleep(6)
        wire.feed(b"x")
    began = loop.time()
    with pytest.raises(UpstreamTimeout):
        await waiting
    assert loop.time() - began == pytest.approx(7.0)


async def test_who_stops_waiting_is_shown_nothing_more() -> None:
    wire = Wire()
    asking = await wire.ask()
    wire.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
    await asking
    shown: list[bytes] = []

    def take(data: bytes) -> bool:
        shown.append(data)
        return True

    waiting = asyncio.create_task(wire.connection.piece(5.0, take))
    await asyncio.sleep(0)
    waiting.cancel()
    wire.feed(b"hello")
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert shown == []


async def test_silence_before_the_head_and_in_the_body_is_a_timeout_from_the_last_byte() -> None:
    loop = asyncio.get_running_loop()
    wire = Wire()
    asking = await wire.ask(timeout_s=60.0)
    await asyncio.sleep(59)
    wire.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")
    await asking
    wire.feed(b"12345")
    assert await wire.connection.piece(7.0) == b"12345"
    began = loop.time()
    with pytest.raises(UpstreamTimeout):
        await wire.connection.piece(7.0)
    assert loop.time() - began == pytest.approx(7.0)
    silent = Wire()
    began = loop.time()
    with pytest.raises(UpstreamTimeout):
        await silent.connection.exchange(b"GET", 3.0)
    assert loop.time() - began == pytest.approx(3.0)


async def test_closed_connection_takes_no_request() -> None:
    wire = Wire()
    wire.connection.abort()
    with pytest.raises(UpstreamUnreachable):
        await wire.connection.exchange(b"GET", 5.0)


async def test_bytes_that_nobody_asked_for_close_the_connection() -> None:
    wire = Wire()
    wire.feed(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert wire.transport.aborted
    assert not wire.connection.reusable
