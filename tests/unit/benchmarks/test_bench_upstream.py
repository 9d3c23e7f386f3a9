"""The scripted engine's protocol, fed byte by byte, and its clock, without sockets or waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from benchmarks.gateway import answers, request
from benchmarks.gateway.answers import Asked
from benchmarks.gateway.upstream import Connection, Pace


class FakeLoop:
    """A clock that is advanced by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.timers.append((self.now + delay, callback))

    def advance(self, seconds: float) -> None:
        """In one step, as a loop does that was busy for so long."""
        self.now += seconds
        due = [callback for at, callback in self.timers if at <= self.now + 1e-9]
        self.timers = [(at, callback) for at, callback in self.timers if at > self.now + 1e-9]
        for callback in due:
            callback()


class FakeTransport(asyncio.Transport):
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.aborted = False

    def write(self, data: Any) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.aborted = True


class Engine:
    """One connection of the engine with everything around it that it needs."""

    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.pace = Pace(cast(asyncio.AbstractEventLoop, self.loop))
        self.transport, self.connection = self.connect()

    def connect(self) -> tuple[FakeTransport, Connection]:
        transport, connection = FakeTransport(), Connection(self.pace)
        connection.connection_made(transport)
        return transport, connection

    @property
    def written(self) -> list[bytes]:
        return self.transport.written


@pytest.fixture
def engine() -> Engine:
    return Engine()


def chat(body: bytes) -> bytes:
    return request.http("127.0.0.1", "none", body)


def test_body_may_come_byte_by_byte_and_the_connection_is_kept(engine: Engine) -> None:
    for _ in range(2):
        asked = chat(request.short_call())
        for at in range(len(asked)):
            engine.connection.data_received(asked[at : at + 1])
    assert engine.written == [answers.response(answers.completion())] * 2


def test_chunked_body_is_understood(engine: Engine) -> None:
    body = request.short_call()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    engine.connection.data_received(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
    assert engine.written == [answers.response(answers.completion())]


def test_stream_writes_one_chunk_each_interval(engine: Engine) -> None:
    engine.connection.data_received(chat(request.streaming_call(3, 10)))
    counts = []
    for _ in range(35):
        engine.loop.advance(0.001)
        counts.append(len(engine.written) - 1)
    assert [counts[at] for at in (5, 11, 21, 31)] == [0, 1, 2, 3]
    assert engine.written == [answers.STREAM_HEAD, *answers.frames(Asked(chunks=3))]
    assert (engine.pace.open, engine.pace.completed, engine.loop.timers) == (0, 1, [])


def test_late_stream_catches_up_by_one_chunk_a_millisecond(engine: Engine) -> None:
    engine.connection.data_received(chat(request.streaming_call(8, 10)))
    engine.loop.advance(0.045)
    assert len(engine.written) == 2
    for _ in range(3):
        engine.loop.advance(0.001)
    assert len(engine.written) == 5
    engine.loop.advance(0.001)
    assert len(engine.written) == 5


def test_stream_whose_client_has_left_ends_and_counts_as_aborted(engine: Engine) -> None:
    engine.connection.data_received(chat(request.streaming_call(8, 10)))
    engine.connection.connection_lost(None)
    for _ in range(15):
        engine.loop.advance(0.001)
    assert engine.written == [answers.STREAM_HEAD]
    assert (engine.pace.open, engine.pace.aborted) == (0, 1)


def test_streams_of_different_pace_go_on_side_by_side(engine: Engine) -> None:
    other, connection = engine.connect()
    engine.connection.data_received(chat(request.streaming_call(2, 10)))
    connection.data_received(chat(request.streaming_call(4, 5)))
    for _ in range(25):
        engine.loop.advance(0.001)
    assert other.written == [answers.STREAM_HEAD, *answers.frames(Asked(chunks=4, every_ms=5))]
    assert engine.written == [answers.STREAM_HEAD, *answers.frames(Asked(chunks=2))]


def test_what_is_not_http_ends_the_connection(engine: Engine) -> None:
    engine.connection.data_received(b"\x00\x01 nonsense\r\n\r\n")
    assert engine.transport.aborted


@pytest.mark.parametrize(("path", "status"), [(b"/health", b"200"), (b"/v1/models", b"200"), (b"/version", b"404")])
def test_other_paths(engine: Engine, path: bytes, status: bytes) -> None:
    engine.connection.data_received(b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % path)
    assert engine.written[0].startswith(b"HTTP/1.1 " + status)
