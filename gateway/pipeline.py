"""A call's whole life on one screen: identify, reserve, gate, pick, open; then the reply, whose end gives everything back.

Whatever a call takes is held by one lease, in the order of taking. If a stage fails, the lease ends at once; if all succeed, it
is handed on to the Reply, and whoever sends the reply ends it, however that goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

import msgspec

from gateway.errors import (
    CallError,
    EngineRefused,
    InvalidApiKey,
    ModelNotAllowed,
    ModelNotFound,
    ServerOverloaded,
    UpstreamError,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.lease import Lease
from gateway.policy.routing import Flight, Router, Work
from gateway.ports import Answer, Clock, Entry, Ports, Principal, Replica
from gateway.protocol import usage
from gateway.protocol.openai import Request
from gateway.protocol.sse import DONE, ENGINE_ERROR, EventSplitter
from gateway.protocol.usage import UsageCutter, UsageMeter
from gateway.receipt import Receipt

MOST_ATTEMPTS = 3
_BYTES_PER_TOKEN, _ALLOWANCE_TOKENS = 4, 256  # for comparing loads only
_MOST_NAME = 256  # characters of a model name in the ledger; clients may ask for any
_ENGINE_REFUSES = frozenset({400, 413, 422})
_ENGINE_IS_FULL = frozenset({429, 503})
_REPORTED = re.compile(r"^\d+ validation errors?:.*?'msg': '([^']*)'", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it came in, and whose it is."""

    id: str
    endpoint: str
    principal: Principal
    request: Request


class Pipeline:
    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._router: Router[Replica] = Router()
        ports.fleet.on_change(lambda _: self._router.forget({replica.id for replica in self._ready()}))
        ports.fleet.on_pressure(lambda replica_id, told: self._router.told(replica_id, told, ports.clock.monotonic()))

    async def run(self, call: Call) -> Reply:
        """Take all that the call needs and open the engine's answer, up to its first piece.

        Raises a CallError. Whatever happens, the call leaves a ledger entry.
        """
        ports = self._ports
        with Lease() as lease:
            receipt = Receipt(
                _entry(call.id, call.endpoint, call.principal, ports.clock, call.request), ports.clock, ports.ledger
            )
            lease.hold(receipt.close)
            self._check_model(call.request.model, call.principal)
            reservation = await ports.limits.reserve(call.principal, call.request.model)
            lease.hold(lambda _: reservation.settle(receipt.used()))
            answer, begin = await self._open(call, receipt, lease)
            if call.request.stream:
                return StreamReply(answer, begin, call.request, receipt, lease.hand_on())
            return Reply(answer, begin, receipt, lease.hand_on())

    def record_refusal(self, call_id: str, endpoint: str, principal: Principal, error: CallError) -> None:
        """A request of a known key that cannot be read is a call too: it leaves an entry, of no model."""
        clock = self._ports.clock
        Receipt(_entry(call_id, endpoint, principal, clock), clock, self._ports.ledger).close(error)

    async def identify(self, secret: str) -> Principal:
        """Whose key this is. Raises InvalidApiKey."""
        principal = await self._ports.tenants.principal(secret) if secret else None
        if principal is None:
            raise InvalidApiKey
        return principal

    def models_for(self, principal: Principal) -> list[str]:
        return [model for model in self._ports.fleet.models() if principal.may_use(model)]

    def _ready(self) -> Iterator[Replica]:
        fleet = self._ports.fleet
        return (replica for model in fleet.models() for replica in fleet.ready(model))

    def _check_model(self, model: str, principal: Principal) -> None:
        known = model in self._ports.fleet.models()
        if known and principal.may_use(model):
            return
        usable = ", ".join(self.models_for(principal)) or "-"
        raise (ModelNotAllowed if known else ModelNotFound)(param="model", model=model, models=usable)

    async def _open(self, call: Call, receipt: Receipt, lease: Lease) -> tuple[Answer, bytes]:
        """A place, a replica, and the beginning of its answer. Goes elsewhere when a replica is gone or full, before any byte."""
        ports, model = self._ports, call.request.model
        body = call.request.body
        work = Work(body, len(body) // _BYTES_PER_TOKEN + _ALLOWANCE_TOKENS, call.principal.tenant)
        tried: list[str] = []
        while True:
            with Lease() as attempt:
                place = ports.gate.place(model)
                await place.take()
                attempt.hold(place.give_back)
                receipt.started()
                ready, now = ports.fleet.ready(model), ports.clock.monotonic()
                replica = self._router.pick(work, ready, now, tried) or self._router.pick(work, ready, now)
                try:
                    if replica is None:
                        tried.append("none was ready")
                        raise UpstreamUnreachable
                    tried.append(replica.id)
                    flight = self._router.began(replica.id, work, now)
                    attempt.hold(partial(self._left, replica, flight, receipt))
                    answer, begin = await self._begin(call, replica, flight, attempt)
                except (UpstreamUnreachable, ServerOverloaded) as problem:
                    if len(tried) >= MOST_ATTEMPTS:
                        raise
                    attempt.end(problem)
                    continue
                receipt.answered_by(replica.id, answer.status)
                lease.hold(attempt.hand_on().end)
                return answer, begin

    async def _begin(self, call: Call, replica: Replica, flight: Flight, attempt: Lease) -> tuple[Answer, bytes]:
        """This replica's answer and its first piece; all of it where it does not stream, since none of it has gone out yet."""
        ports = self._ports
        ports.fleet.call_began(replica)
        answer = await ports.upstream.open(replica, call.endpoint, call.request.body, call.id)
        attempt.hold(answer.close)
        if answer.status != 200:
            await self._refuse(call.request.model, answer)
        if not call.request.stream:
            begin = await _whole(answer)
        else:
            begin = await answer.piece()
            self._router.first_token(flight, ports.clock.monotonic())
        ports.fleet.call_succeeded(replica)
        return answer, begin

    def _left(self, replica: Replica, flight: Flight, receipt: Receipt, error: BaseException | None) -> None:
        self._router.ended(flight, receipt.used().completion_tokens or 0, self._ports.clock.monotonic())
        if isinstance(error, UpstreamUnreachable):
            self._ports.fleet.connection_broke(replica)
        elif isinstance(error, UpstreamFailed | UpstreamTimeout):
            self._ports.fleet.call_failed(replica)

    async def _refuse(self, model: str, answer: Answer) -> None:
        body = await _whole(answer)
        if answer.status in _ENGINE_IS_FULL:
            raise ServerOverloaded(model=model, retry_after_s=self._ports.gate.retry_after_s(model))
        if answer.status in _ENGINE_REFUSES:
            problem = _engine_problem(body)
            raise EngineRefused(param=problem.param, detail=problem.message)
        raise UpstreamFailed(upstream_status=answer.status)


class Reply:
    """An opened answer and everything the call holds. Use as `with reply:`; leaving the block gives it all back.

    This is one that comes whole; `StreamReply` is the other. What a piece holds counts as used once it is said to be `delivered`.
    """

    streams = False

    def __init__(self, answer: Answer, begin: bytes, receipt: Receipt, lease: Lease) -> None:
        self.content_type = answer.content_type
        self._begin = begin
        self._receipt = receipt
        self._lease = lease

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lease.end(error)

    async def piece(self) -> bytes:
        """What the client gets next: here, all of it. Raises UpstreamError, before which all that came was handed out."""
        return self._begin

    def delivered(self) -> None:
        """The last piece is with the client."""
        counted = usage.of_body(self._begin)
        self._receipt.first_byte(lambda: counted)


class StreamReply(Reply):
    """Events, until `piece` gives nothing."""

    streams = True

    def __init__(self, answer: Answer, begin: bytes, request: Request, receipt: Receipt, lease: Lease) -> None:
        super().__init__(answer, begin, receipt, lease)
        self._answer = answer
        self._splitter = EventSplitter()
        self._cutter = UsageCutter(request.wish, single_choice=request.single_choice)
        self._meter = UsageMeter(single_choice=request.single_choice, n=request.n)
        self._events: list[bytes] = []

    async def piece(self) -> bytes:
        while True:
            try:
                data, self._begin = self._begin or await self._answer.piece(), b""
            except UpstreamError:
                held = b"".join(self._cutter.rest())
                if held:
                    return held
                raise
            if not data:
                return b"".join(self._cutter.rest()) + self._splitter.rest()
            events = self._splitter.feed(data)
            self._events += events
            out = b"".join([piece for event in events for piece in self._cutter.cut(event)])
            if out:
                return out

    def delivered(self) -> None:
        self._receipt.first_byte(self._meter.usage)
        for event in self._events:
            self._meter.saw(event)
            if event.startswith(ENGINE_ERROR):
                self._receipt.engine_failed()
            elif event == DONE:
                self._receipt.whole()
        self._events = []


async def _whole(answer: Answer) -> bytes:
    body = await answer.piece()
    while piece := await answer.piece():
        body += piece
    return body


def _entry(call_id: str, endpoint: str, principal: Principal, clock: Clock, request: Request | None = None) -> Entry:
    return Entry(
        id=call_id,
        started_at=clock.time(),
        endpoint=endpoint,
        model=request.model[:_MOST_NAME] if request else "",
        stream=request.stream if request else False,
        tenant=principal.tenant,
        project=principal.project,
        key_id=principal.key_id,
    )


class _EngineProblem(msgspec.Struct, frozen=True):
    message: str = "it gave no reason"
    param: str | None = None


class _EngineError(msgspec.Struct, frozen=True):
    error: _EngineProblem = _EngineProblem()


def _engine_problem(body: bytes) -> _EngineProblem:
    """What the engine says is wrong, in one line; of a validation report (FastAPI's) the words of its first item."""
    try:
        said = msgspec.json.decode(body, type=_EngineError).error
    except msgspec.DecodeError:
        return _EngineProblem()
    reported = _REPORTED.search(said.message)
    param = said.param and said.param.removeprefix("body.")
    return _EngineProblem(f"{param}: {reported[1]}" if reported else " ".join(said.message.split()), param)
