"""All connections together: how many there may be, who goes when there are too many, and how they end when the process does."""

from __future__ import annotations

import asyncio

import pytest

from gateway.client_connection import Connections
from gateway.protocol.asgi import Receive, Scope, Send
from tests.unit.gateway.client_connection.wire import LIMITS, Echo, Wire, answer, piece, request, start, whole_body

GET = request()
SLOW = request(path="/slow")


class Office(Echo):
    """Answers at once; /slow when it is told to, /early without reading what was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/early":
            await answer(send, b"")
            return
        if scope["path"] == "/slow":
            await self.go.wait()
        await super().__call__(scope, receive, send)


class House:
    """Connections that belong together; there may be three."""

    def __init__(self, descriptors: float = float("inf")) -> None:
        self.app = Office()
        self.connections = Connections(LIMITS, descriptors=descriptors)

    async def enter(self, *sent: bytes) -> Wire:
        wire = Wire(self.app, self.connections)
        await wire.ask(*sent)
        return wire


async def test_the_one_that_has_waited_longest_goes_for_a_new_one() -> None:
    house = House()
    kept, half, silent = await house.enter(GET), await house.enter(GET[:9]), await house.enter()
    new = await house.enter(GET)
    assert [wire.transport.lost for wire in (kept, half, silent, new)] == [True, False, False, False]
    await house.enter()
    assert [wire.transport.lost for wire in (half, silent, new)] == [True, False, False]
    assert len(house.connections.open) == LIMITS.connections


async def test_using_a_connection_makes_it_the_last_to_go() -> None:
    house = House()
    used, idle = await house.enter(), await house.enter(GET)
    await used.ask(GET)
    await house.enter()
    await house.enter()
    assert [wire.transport.lost for wire in (used, idle)] == [False, True]


async def test_running_requests_stay_and_new_ones_are_told_to_come_again() -> None:
    house = House()
    running = [await house.enter(SLOW) for _ in range(LIMITS.connections)]
    new = await house.enter(GET)
    (refused,) = new.answers
    assert (refused.status, refused.code) == (503, "server_overloaded")
    assert refused.headers["retry-after"] == "1"
    house.app.go.set()
    await new.settle()
    assert [wire.statuses for wire in running] == [[200]] * LIMITS.connections
    assert (await house.enter(GET)).statuses == [200]


async def test_one_that_lingers_goes_first() -> None:
    house = House()
    lingering = await house.enter(request("POST", "/early", b"hello")[:-1])
    slow = [await house.enter(SLOW) for _ in range(LIMITS.connections)]
    assert [wire.transport.lost for wire in (lingering, *slow)] == [True, False, False, False]


async def test_one_that_goes_makes_room_at_once() -> None:
    """Not only when the loop has told of its end: a call in the same moment must not be refused."""
    house = House()
    kept = [await house.enter(GET) for _ in range(LIMITS.connections)]
    new = Wire(house.app, house.connections)
    kept[-1].feed(GET)
    await new.settle()
    assert kept[0].transport.lost
    assert kept[-1].statuses == [200, 200]


async def test_a_call_takes_two_descriptors() -> None:
    """Its client's and its engine's; without the second it could not run."""
    house = House(descriptors=4)
    first, waiting = await house.enter(SLOW), await house.enter()
    second = await house.enter(SLOW)
    assert [wire.transport.lost for wire in (first, waiting, second)] == [False, True, False]
    assert (await house.enter(SLOW)).statuses == [503]
    house.app.go.set()
    await first.settle()
    assert (first.statuses, second.statuses) == ([200], [200])


async def test_many_that_are_late_together_do_not_end_all_at_once() -> None:
    app, connections = Echo(), Connections(LIMITS.model_copy(update={"connections": 2000}))
    wires = [Wire(app, connections) for _ in range(1000)]
    seen = set()
    for _ in range(1200):
        await asyncio.sleep(0.01)
        seen.add(sum(wire.transport.lost for wire in wires))
    assert len(seen) > 3
    assert not connections.open


async def test_nothing_looks_at_the_clock_when_nobody_is_there() -> None:
    wire = Wire(Echo())
    wire.transport.lose()
    await asyncio.sleep(1)
    with pytest.raises(RuntimeError, match="every task waits"):
        asyncio.get_running_loop()._run_once()  # type: ignore[attr-defined]


async def test_what_is_asked_while_the_process_stops_is_handed_back() -> None:
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(piece(b"hello", more=True))
        await go.wait()
        await send(piece(b""))

    streaming, kept = Wire(app), Wire(Echo())
    await streaming.ask(GET + GET)
    await kept.ask(GET)
    streaming.connections.closing = kept.connections.closing = True
    await kept.ask(GET)
    go.set()
    await streaming.settle()
    for wire in (streaming, kept):
        _, refused = wire.answers
        assert wire.statuses == [200, 503]
        assert (refused.code, refused.headers["retry-after"], refused.headers["connection"]) == ("server_stopping", "1", "close")


async def test_refusal_is_said_once_whatever_comes_behind_it(caplog: pytest.LogCaptureFixture) -> None:
    wire = Wire(Echo())
    wire.connections.closing = True
    await wire.ask(request("POST", body=b"hello") + GET + request("GET", "/", b"", "connection: upgrade", "upgrade: x"))
    assert wire.statuses == [503]
    await asyncio.sleep(6)
    assert wire.is_quiet
    wire = Wire(Echo())
    wire.connections.closing = True
    await wire.ask(GET + b"nonsense", b"nonsense")
    assert wire.statuses == [503]
    assert caplog.records == []


async def test_answer_that_begins_while_the_process_stops_is_the_last() -> None:
    house = House()
    running = await house.enter(SLOW)
    house.connections.closing = True
    house.app.go.set()
    await running.settle()
    (answered,) = running.answers
    assert (answered.status, answered.headers["connection"]) == (200, "close")
    assert running.is_quiet


async def test_stopping_closes_what_waits_and_what_runs_when_it_is_done() -> None:
    house = House()
    waiting, half, running = await house.enter(GET), await house.enter(GET[:9]), await house.enter(SLOW)
    for wire in (waiting, half, running):
        wire.connection.shutdown()
    await running.settle()
    assert [wire.is_quiet for wire in (waiting, half, running)] == [True, True, False]
    house.app.go.set()
    await running.settle()
    assert (running.statuses, running.is_quiet) == ([200], True)


async def test_body_that_comes_while_the_process_stops_belongs_to_a_call_that_runs() -> None:
    sizes: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        sizes.append(len(await whole_body(receive) or b""))
        await answer(send, b"")

    wire = Wire(app)
    upload = request("POST", body=b"hello")
    await wire.ask(upload[:-1])
    wire.connections.closing = True
    await wire.ask(upload[-1:])
    assert (sizes, wire.statuses) == ([5], [200])
