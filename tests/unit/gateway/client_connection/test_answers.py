"""Answers to the byte, and what becomes of the connection behind them."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from gateway.protocol.asgi import Message, Receive, Scope, Send, client_connection
from tests.unit.gateway.client_connection.wire import Echo, Wire, answer, answering, piece, request, start, whole_body

GET = request()
OK = b"HTTP/1.1 200 OK\r\n"


def sending(*messages: Message) -> Any:
    async def act(send: Send) -> None:
        for message in messages:
            await send(message)

    return answering(act)


LENGTH = sending(start(200, (b"content-length", b"5")), piece(b"he", more=True), piece(b"llo"))
NO_LENGTH = sending(
    start(200, (b"content-type", b"text/event-stream")), piece(b"he", more=True), piece(b"", more=True), piece(b"llo")
)
EMPTY_END = sending(start(), piece(b"hello", more=True), piece(b""))


async def test_answer_with_a_length() -> None:
    wire = Wire(LENGTH)
    await wire.ask(GET)
    assert wire.written == OK + b"content-length: 5\r\n\r\nhello"
    assert not wire.transport.is_closing()


async def test_answer_without_a_length_goes_in_chunks() -> None:
    wire = Wire(NO_LENGTH)
    await wire.ask(GET)
    head = OK + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    assert wire.written == head + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
    assert not wire.transport.is_closing()


async def test_stream_may_end_with_nothing() -> None:
    wire = Wire(EMPTY_END)
    await wire.ask(GET, GET)
    assert [(found.body, found.whole) for found in wire.answers] == [(b"hello", True)] * 2


@pytest.mark.parametrize(("app", "kept"), [(LENGTH, True), (NO_LENGTH, False)])
@pytest.mark.parametrize("wants_to_keep", [True, False])
async def test_http_1_0(app: Any, kept: bool, wants_to_keep: bool) -> None:
    wire = Wire(app)
    await wire.ask(b"GET / HTTP/1.0\r\n" + (b"Connection: keep-alive\r\n" if wants_to_keep else b"") + b"\r\n")
    kept = kept and wants_to_keep
    assert wire.written.endswith(b"\r\nconnection: %b\r\n\r\nhello" % (b"keep-alive" if kept else b"close"))
    assert b"chunked" not in wire.written
    assert wire.transport.is_closing() is not kept


@pytest.mark.parametrize("app", [LENGTH, NO_LENGTH])
async def test_head_gets_a_head(app: Any) -> None:
    wire = Wire(app)
    await wire.ask(request("HEAD"))
    assert wire.written.startswith(OK)
    assert wire.written.endswith(b"\r\n\r\n")
    assert b"chunked" not in wire.written
    first = len(wire.written)
    await wire.ask(GET)
    assert b"hello" in wire.written[first:] or b"llo" in wire.written[first:]


@pytest.mark.parametrize("status", [204, 304])
async def test_statuses_without_a_body_have_none(status: int) -> None:
    wire = Wire(sending(start(status), piece(b"never")))
    await wire.ask(GET, GET)
    assert wire.statuses == [status, status]
    assert wire.written.endswith(b"\r\n\r\n")


async def test_client_that_wants_the_connection_closed_gets_it_closed_behind_the_answer() -> None:
    wire = Wire(LENGTH)
    await wire.ask(request("GET", "/", b"", "Connection: close"))
    assert wire.written == OK + b"content-length: 5\r\nconnection: close\r\n\r\nhello"
    assert wire.is_quiet


async def test_unknown_status_needs_no_reason() -> None:
    wire = Wire(sending(start(599, (b"content-length", b"0")), piece(b"")))
    await wire.ask(GET)
    assert wire.written.startswith(b"HTTP/1.1 599 -\r\n")


async def test_date_is_in_every_answer() -> None:
    wire = Wire(LENGTH)
    await wire.ask(GET, b"nonsense")
    assert [found.headers["date"][-4:] for found in wire.answers] == [" GMT", " GMT"]


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nset-cookie: b", b"a\rb", b"\r\n\r\n<html>"])
@pytest.mark.parametrize("in_name", [True, False])
async def test_header_cannot_smuggle_another(value: bytes, in_name: bool, caplog: pytest.LogCaptureFixture) -> None:
    field = (value, b"x") if in_name else (b"x", value)
    wire = Wire(sending(start(200, field), piece(b"hello")))
    await wire.ask(GET)
    assert (wire.written, wire.is_quiet) == (b"", True)
    assert "line break" in caplog.text


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("raises", [True, False])
async def test_answer_that_is_not_whole_is_cut_off(begun: bool, raises: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if begun:
            await send(start())
            await send(piece(b"hello", more=True))
        if raises:
            raise LookupError("a fault")

    wire = Wire(app)
    await wire.ask(GET + GET)
    assert wire.written.count(b"hello") == begun
    assert not any(found.whole for found in wire.answers)
    assert wire.transport.aborted
    assert wire.is_quiet
    assert ("a fault" in caplog.text) is raises


async def test_fault_behind_a_whole_answer_changes_nothing_for_the_client(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"hello")
        await send(piece(b"more"))

    wire = Wire(app)
    await wire.ask(GET, GET)
    assert [found.body for found in wire.answers] == [b"hello", b"hello"]
    assert "out of order" in caplog.text


async def test_path_in_the_log_cannot_forge_a_line(caplog: pytest.LogCaptureFixture) -> None:
    await Wire(sending(piece(b"too early"))).ask(request(path="/%0AERROR"))
    assert "\nERROR" not in caplog.text


async def test_answer_before_the_body_came_can_be_read_to_its_end() -> None:
    """The client still sends; closing with unread bytes would destroy the answer on its way."""
    wire = Wire(sending(start(413, (b"content-length", b"3")), piece(b"big")))
    upload = request("POST", body=b"x" * 1000)
    await wire.ask(upload[:500])
    assert wire.written == b"HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig"
    assert (wire.transport.ended, wire.transport.is_closing(), wire.transport.reading) == (True, False, True)
    await wire.ask(upload[500:] + GET)
    assert wire.statuses == [413]
    wire.half_close()
    await wire.settle()
    assert wire.is_quiet


async def test_lingering_ends_by_itself() -> None:
    wire = Wire(sending(start(413, (b"content-length", b"3")), piece(b"big")))
    await wire.ask(request("POST", body=b"x" * 1000)[:500])
    await asyncio.sleep(6)
    assert wire.is_quiet


async def test_send_waits_while_the_client_does_not_read() -> None:
    sent = 0

    async def act(send: Send) -> None:
        nonlocal sent
        await send(start())
        for _ in range(100):
            await send(piece(b"x" * 10_000, more=True))
            sent += 1

    wire = Wire(answering(act))
    wire.transport.client_stops_reading()
    await wire.ask(GET)
    await asyncio.sleep(30)
    assert sent == wire.written.count(b"x" * 10_000) == 7
    wire.transport.client_reads(20_000)
    await wire.settle()
    assert sent == 7
    wire.transport.client_reads(40_000)
    await wire.settle()
    assert sent == wire.written.count(b"x" * 10_000) == 13
    wire.transport.lose()
    await wire.settle()
    assert wire.is_quiet


async def test_client_that_reads_nothing_gets_no_further_answers_made() -> None:
    """A few bytes asked, thousands answered: without this, whoever never reads could fill our memory."""
    app = Echo()
    wire = Wire(app)
    wire.transport.client_stops_reading()
    await wire.ask(request("POST", body=b"x" * 100_000), GET, GET)
    assert len(app.asked) == 1
    wire.transport.client_reads(100_000)
    await wire.settle()
    assert wire.statuses == [200, 200, 200]


async def test_lost_connection_is_told_once_and_at_once() -> None:
    told: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection = client_connection(scope)
        assert connection is not None
        connection.when_lost = lambda: told.append("lost")
        await whole_body(receive)
        await send(start())
        await send(piece(b"hello", more=True))
        told.append((await receive())["type"])
        assert connection.is_closing()
        await send(piece(b"unheard", more=True))
        told.append((await receive())["type"])

    wire = Wire(app)
    await wire.ask(GET)
    written = wire.transport.written
    wire.transport.lose(ConnectionResetError())
    await wire.settle()
    assert told == ["lost", "http.disconnect", "http.disconnect"]
    assert wire.transport.written == written
    assert wire.is_quiet


def writer_of(scope: Scope) -> Callable[[bytes], bool]:
    connection = client_connection(scope)
    assert connection is not None
    write = connection.writer()
    assert write is not None
    return write


@pytest.mark.parametrize("length", [(), ((b"content-length", b"75000"),)])
async def test_pieces_written_without_waiting_read_like_those_that_are_sent(length: tuple[tuple[bytes, bytes], ...]) -> None:
    said: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        write = writer_of(scope)
        said.append(write(b"before the head"))
        await send(start(200, *length))
        said.append(write(b"before the first piece"))
        await send(piece(b"a" * 500, more=True))
        said.extend([write(b"b" * 1500), write(b"c" * 3000)])
        wire.transport.client_stops_reading()
        said.extend([write(b"d" * 70_000), write(b"to one who does not read")])
        wire.transport.client_reads(100_000)
        await send(piece(b""))
        said.append(write(b"behind the end"))

    wire = Wire(app)
    await wire.ask(GET)
    assert said == [False, False, True, True, True, False, False]
    (found,) = wire.answers
    assert (found.body, found.whole) == (b"a" * 500 + b"b" * 1500 + b"c" * 3000 + b"d" * 70_000, True)


async def test_nothing_is_written_to_one_who_has_left() -> None:
    said: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        write = writer_of(scope)
        await send(start())
        await send(piece(b"hello", more=True))
        await receive()
        await receive()
        said.append(write(b"unheard"))

    wire = Wire(app)
    await wire.ask(GET)
    written = wire.transport.written
    wire.transport.lose(ConnectionResetError())
    await wire.settle()
    assert said == [False]
    assert wire.transport.written == written


async def test_half_closing_is_leaving() -> None:
    closing: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection = client_connection(scope)
        assert connection is not None
        await asyncio.sleep(1)
        closing.append(connection.is_closing())

    wire = Wire(app)
    await wire.ask(GET)
    wire.half_close()
    await asyncio.sleep(2)
    assert closing == [True]
    assert wire.is_quiet


async def test_connection_lost_in_the_middle_of_a_body_is_a_disconnect() -> None:
    bodies: list[bytes | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        bodies.append(await whole_body(receive))

    wire = Wire(app)
    await wire.ask(request("POST", body=b"x" * 100)[:-50])
    wire.transport.lose()
    await wire.settle()
    assert bodies == [None]
    assert wire.is_quiet


async def test_cancelling_what_was_lost_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection = client_connection(scope)
        task = asyncio.current_task()
        assert connection is not None
        assert task is not None
        connection.when_lost = task.cancel
        await asyncio.sleep(3600)

    wire = Wire(app)
    await wire.ask(GET)
    (task,) = wire.tasks
    wire.transport.lose()
    await wire.settle()
    assert (task.done(), task.cancelled(), caplog.records) == (True, False, [])


@pytest.mark.parametrize(
    "when", ["waiting", "half a head", "running", "half a body", "pipelined", "streaming", "answered", "refused"]
)
async def test_what_is_lost_is_freed_without_the_collector(when: str) -> None:
    """Ten thousand dead connections must not wait for the garbage collector."""

    class App(Echo):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/stream":
                await send(start())
                await send(piece(b"x", more=True))
                while (await receive())["type"] != "http.disconnect":
                    pass
            else:
                await super().__call__(scope, receive, send)

    app, feeds = (
        App(),
        {
            "waiting": [],
            "half a head": [GET[:10]],
            "running": [request(path="/stream")],
            "half a body": [request("POST", body=b"hello")[:-2]],
            "pipelined": [request(path="/stream") + GET + request("POST", body=b"hello")[:-2]],
            "streaming": [request(path="/stream")],
            "answered": [GET, GET],
            "refused": [GET, b"nonsense"],
        },
    )
    gc.collect()
    gc.disable()
    try:
        wire = Wire(app)
        await wire.ask(*feeds[when])
        freed = weakref.ref(app), weakref.ref(wire.transport)
        wire.transport.lose()
        await wire.settle()
        assert wire.is_quiet
        del wire, app
        await asyncio.sleep(1)
        assert [ref() for ref in freed] == [None, None]
    finally:
        gc.enable()


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
