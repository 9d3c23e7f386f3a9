"""How long a client may take for its part: each limit ends what it should, when it should, and nothing else. In virtual time."""

from __future__ import annotations

import asyncio

import pytest

from gateway.protocol.asgi import Receive, Scope, Send, client_connection
from tests.unit.gateway.client_connection.wire import LIMITS, Echo, Wire, answer, answering, piece, request, start, whole_body

GET = request()
SLACK_S = 0.6  # between two looks at the clock


async def seconds_until_lost(wire: Wire) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not wire.transport.lost:
        await asyncio.sleep(0.1)
        assert loop.time() - began < 1000
    return loop.time() - began


def just_after(seconds: float) -> object:
    return pytest.approx(seconds + SLACK_S / 2, abs=SLACK_S / 2 + 0.1)


async def test_client_that_sends_nothing_is_dropped_without_a_word() -> None:
    wire = Wire(Echo())
    assert await seconds_until_lost(wire) == just_after(LIMITS.head_s)
    assert wire.written == b""


async def test_half_a_head_is_a_408() -> None:
    wire = Wire(Echo())
    await wire.ask(GET[:-2])
    assert await seconds_until_lost(wire) == pytest.approx(LIMITS.head_s + 5.5, abs=0.6)  # and the time to read the answer
    (refused,) = wire.answers
    assert (refused.status, refused.code) == (408, "request_timeout")


async def test_head_that_trickles_gets_no_more_time_than_one_that_does_not() -> None:
    wire = Wire(Echo())
    began = asyncio.get_running_loop().time()
    for at in range(len(GET)):
        wire.feed(GET[at : at + 1])
        await asyncio.sleep(1)
        if wire.transport.ended:
            break
    assert asyncio.get_running_loop().time() - began == pytest.approx(LIMITS.head_s + 1, abs=1)
    assert wire.statuses == [408]


async def test_empty_lines_are_no_progress() -> None:
    wire = Wire(Echo())
    for _ in range(20):
        wire.feed(b"\r\n")
        await asyncio.sleep(1)
    assert wire.is_quiet


async def test_kept_connection_is_dropped_when_idle_for_long() -> None:
    wire = Wire(Echo())
    await wire.ask(GET)
    await asyncio.sleep(LIMITS.idle_s - 1)
    await wire.ask(GET)
    assert await seconds_until_lost(wire) == just_after(LIMITS.idle_s)
    assert wire.statuses == [200, 200]


async def test_next_head_has_its_own_time() -> None:
    wire = Wire(Echo())
    await wire.ask(GET)
    await asyncio.sleep(50)
    await wire.ask(GET[:-1])
    await asyncio.sleep(LIMITS.head_s - 1)
    assert wire.statuses == [200]
    await asyncio.sleep(2)
    assert wire.statuses == [200, 408]


async def test_half_a_head_behind_a_running_request_has_its_time_from_the_answer_on() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(100)
        await answer(send, b"")

    wire = Wire(app)
    await wire.ask(GET + GET[:-1])
    await asyncio.sleep(100 + LIMITS.head_s - 1)
    assert wire.statuses == [200]
    await asyncio.sleep(2)
    assert wire.statuses == [200, 408]


async def test_body_that_never_comes_is_a_408() -> None:
    bodies: list[bytes | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        bodies.append(await whole_body(receive))

    wire = Wire(app)
    await wire.ask(request("POST", body=b"hello")[:-1])
    await asyncio.sleep(LIMITS.body_grace_s - 1)
    assert wire.written == b""
    await asyncio.sleep(2)
    (refused,) = wire.answers
    assert (refused.status, refused.code) == (408, "request_timeout")
    assert bodies == [None]


@pytest.mark.parametrize(("rate", "status"), [(1100, 200), (700, 408)])
async def test_body_may_take_its_time_at_the_lowest_rate(rate: int, status: int) -> None:
    wire = Wire(Echo())
    upload = request("POST", body=b"x" * 100_000)
    for at in range(0, len(upload), rate):
        wire.feed(upload[at : at + rate])
        await asyncio.sleep(1)
    assert wire.statuses == [status]


async def test_running_request_has_all_the_time_it_needs() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await whole_body(receive)
        await asyncio.sleep(10_000)
        await answer(send, b"")

    wire = Wire(app)
    await wire.ask(request("POST", body=b"hello"))
    await asyncio.sleep(10_001)
    assert wire.statuses == [200]


async def test_body_that_the_app_does_not_take_is_not_the_clients_fault() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(500)
        await answer(send, b"%d" % len(await whole_body(receive) or b""))

    wire = Wire(app)
    upload = request("POST", body=b"x" * 200_000)
    await wire.ask(upload[:100_000])
    await asyncio.sleep(500)
    await wire.ask(upload[100_000:])
    assert wire.answers[0].body == b"200000"


async def streaming_for_ever(scope: Scope, receive: Receive, send: Send) -> None:
    connection, task = client_connection(scope), asyncio.current_task()
    assert connection is not None
    assert task is not None
    connection.when_lost = task.cancel
    await send(start())
    while True:
        await send(piece(b"x" * 1000, more=True))
        await asyncio.sleep(0.1)


async def test_client_that_reads_nothing_of_its_stream_is_dropped() -> None:
    wire = Wire(streaming_for_ever)
    wire.transport.client_stops_reading()
    await wire.ask(GET)
    full_s = 64 * 0.1
    assert await seconds_until_lost(wire) == pytest.approx(full_s + LIMITS.stall_s, abs=1.5)
    assert len(wire.written) < 70_000
    await wire.settle()
    assert wire.is_quiet


async def test_client_that_reads_slowly_but_enough_is_not_dropped() -> None:
    wire = Wire(streaming_for_ever)
    wire.transport.client_stops_reading()
    await wire.ask(GET)
    for _ in range(600):
        await asyncio.sleep(1)
        wire.transport.client_reads(1000)
    assert not wire.transport.lost
    for _ in range(130):
        await asyncio.sleep(1)
        wire.transport.client_reads(100)
    assert wire.is_quiet


@pytest.mark.parametrize("wants", ["keep-alive", "close"])
async def test_large_answer_may_be_read_for_longer_than_any_limit(wants: str) -> None:
    """The time for the next request begins when the answer has been read; a look at the progress keeps it alive before."""
    wire = Wire(Echo())
    wire.transport.client_stops_reading()
    size = 1_000_000
    upload = request("POST", "/", b"x" * size, f"connection: {wants}")
    await wire.ask(*(upload[at : at + 50_000] for at in range(0, len(upload), 50_000)))
    for _ in range(size // 2000):
        await asyncio.sleep(1)
        wire.transport.client_reads(2000)
    assert not wire.transport.aborted
    if wants == "close":
        return
    await asyncio.sleep(LIMITS.idle_s - 10)
    await wire.ask(GET)
    assert wire.statuses == [200, 200]


async def test_answer_that_is_complete_and_not_read_ends_too() -> None:
    for lines in ((), ("connection: close",)):
        for size in (100_000, 10_000):
            wire = Wire(answering(lambda send: answer(send, b"x" * size)))  # noqa: B023 (it is called in this turn)
            wire.transport.client_stops_reading()
            await wire.ask(request("GET", "/", b"", *lines))
            assert await seconds_until_lost(wire) < 70
            await wire.settle()
            assert wire.is_quiet


async def test_request_that_came_in_time_waits_while_its_client_reads() -> None:
    wire = Wire(Echo())
    wire.transport.client_stops_reading()
    await wire.ask(request("POST", body=b"x" * 100_000), GET[:-1])
    await asyncio.sleep(5)
    wire.feed(GET[-1:])
    await asyncio.sleep(30)
    wire.transport.client_reads(100_000)
    await wire.settle()
    assert wire.statuses == [200, 200]


async def test_large_answer_to_half_a_body_can_be_read_too() -> None:
    wire = Wire(answering(lambda send: answer(send, b"x" * 100_000)))
    wire.transport.client_stops_reading()
    await wire.ask(request("POST", body=b"hello")[:-1])
    await asyncio.sleep(10)
    assert not wire.transport.is_closing()
    wire.transport.client_reads(100_000)
    await asyncio.sleep(6)
    assert wire.is_quiet


async def test_answer_to_half_a_body_that_is_not_read_ends_too() -> None:
    wire = Wire(answering(lambda send: answer(send, b"x" * 100_000)))
    wire.transport.client_stops_reading()
    await wire.ask(request("POST", body=b"hello")[:-1])
    await asyncio.sleep(LIMITS.stall_s + 1)
    assert wire.is_quiet


async def test_reading_again_gives_no_time_to_what_else_is_late() -> None:
    """Each deadline is its own: that the client reads must not give it for ever to send its body."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        for _ in range(100):
            await send(piece(b"x" * 1000, more=True))
        await whole_body(receive)
        await send(piece(b""))

    wire = Wire(app)
    wire.transport.client_stops_reading()
    await wire.ask(request("POST", body=b"hello")[:-1])
    await asyncio.sleep(1)
    wire.transport.client_reads(100_000)
    await wire.settle()
    wire.transport.client_reads(100_000)
    await asyncio.sleep(30)
    wire.feed(b"o")
    await wire.settle()
    assert [found.whole for found in wire.answers] == [False]
