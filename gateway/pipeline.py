"""A call's whole life on one screen: identify, reserve, gate, pick, open; then the reply, whose end gives everything back.

Whatever a call takes is held by one lease, in the order of taking. If a stage fails, the lease ends at once; if all succeed, it
is handed on to the Reply, and whoever sends the reply ends it, however that goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import msgspec

from gateway.errors import (
    CallError,
    EngineRefused,
    InvalidApiKey,
    ModelNotAllowed,
    ModelNotFound,
    NotOfferedByModel,
    ServerOverloaded,
    UpstreamError,
    UpstreamFailed,
    UpstreamUnreachable,
)
from gateway.lease import Lease
from gateway.policy.routing import LeastLoaded
from gateway.ports import Answer, Entry, Ports, Principal, Replica
from gateway.protocol import counts
from gateway.protocol.counts import PassingReader
from gateway.protocol.endpoint import NO_STREAM
from gateway.protocol.openai import Request
from gateway.protocol.sse import EventSplitter
from gateway.protocol.stream_reader import Reader, StreamReader
from gateway.receipt import Receipt

MOST_ATTEMPTS = 3
_ENGINE_REFUSES = frozenset({400, 413, 422})
_ENGINE_HAS_NOT = frozenset({404, 405, 501})  # which addresses vLLM has depends on what kind of model it serves
_ENGINE_IS_FULL = frozenset({429, 503})
_REPORTED = re.compile(r"^\d+ validation errors?:.*?'msg': '([^']*)'", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it came in, and whose it is."""

    id: str
    principal: Principal
    request: Request


class Pipeline:
    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._load: LeastLoaded[Replica] = LeastLoaded()
        ports.fleet.on_change(lambda _: self._load.forget({replica.id for replica in self._ready()}))

    async def run(self, call: Call) -> Reply:
        """Take all that the call needs and open the engine's answer, up to its first piece.

        Raises a CallError. Whatever happens, the call leaves a ledger entry.
        """
        ports = self._ports
        with Lease() as lease:
            entry = self._entry(call.id, call.request.endpoint.path, call.principal, call.request)
            receipt = Receipt(entry, ports.clock, ports.ledger)
            lease.hold(receipt.close)
            self._check_model(call.request.model, call.principal)
            reservation = await ports.limits.reserve(call.principal, call.request.model)
            lease.hold(lambda _: reservation.settle(receipt.used()))
            answer, begin = await self._open(call, receipt, lease)
            reply = StreamReply if call.request.stream else Reply
            return reply(answer, begin, call, receipt, lease.hand_on())

    def record_refusal(self, call_id: str, endpoint: str, principal: Principal, error: CallError) -> None:
        """A request of a known key that cannot be read is a call too: it leaves an entry, of no model."""
        Receipt(self._entry(call_id, endpoint, principal), self._ports.clock, self._ports.ledger).close(error)

    async def identify(self, secret: str) -> Principal:
        """Whose key this is. Raises InvalidApiKey."""
        principal = await self._ports.tenants.principal(secret) if secret else None
        if principal is None:
            raise InvalidApiKey
        return principal

    def models_for(self, principal: Principal) -> list[str]:
        return [model for model in self._ports.fleet.models() if principal.may_use(model)]

    def _entry(self, call_id: str, endpoint: str, principal: Principal, request: Request | None = None) -> Entry:
        return Entry(
            id=call_id,
            started_at=self._ports.clock.time(),
            endpoint=endpoint,
            model=request.model if request else "",
            stream=request.stream if request else False,
            tenant=principal.tenant,
            project=principal.project,
            key_id=principal.key_id,
        )

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
        tried: list[str] = []
        while True:
            with Lease() as attempt:
                place = ports.gate.place(model)
                await place.take()
                attempt.hold(place.give_back)
                receipt.started()
                ready = ports.fleet.ready(model)
                replica = self._load.choose(ready, tried) or self._load.choose(ready)
                try:
                    if replica is None:
                        tried.append("none was ready")
                        raise UpstreamUnreachable
                    tried.append(replica.id)
                    answer, begin = await self._begin(call, replica, attempt)
                except (UpstreamUnreachable, ServerOverloaded) as problem:
                    if len(tried) >= MOST_ATTEMPTS:
                        raise
                    attempt.end(problem)
                    continue
                receipt.answered_by(replica.id, answer.status)
                lease.hold(attempt.hand_on().end)
                return answer, begin

    async def _begin(self, call: Call, replica: Replica, attempt: Lease) -> tuple[Answer, bytes]:
        """This replica's answer and its first piece; all of it where it does not stream, since none of it has gone out yet."""
        self._load.begin(replica.id)
        attempt.hold(lambda error: self._left(replica, error))
        answer = await self._ports.upstream.open(replica, call.request.endpoint.engine_path, call.request.body, call.id)
        attempt.hold(answer.close)
        if answer.status != 200:
            await self._refuse(call.request, answer)
        return answer, await (answer.piece() if call.request.stream else _whole(answer))

    def _left(self, replica: Replica, error: BaseException | None) -> None:
        self._load.end(replica.id)
        if isinstance(error, UpstreamUnreachable):
            self._ports.fleet.connection_broke(replica)

    async def _refuse(self, request: Request, answer: Answer) -> None:
        body = await _whole(answer)
        if answer.status in _ENGINE_IS_FULL:
            raise ServerOverloaded(model=request.model, retry_after_s=self._ports.gate.retry_after_s(request.model))
        if answer.status in _ENGINE_HAS_NOT:
            raise NotOfferedByModel(param="model", model=request.model, path=request.endpoint.path)
        if answer.status in _ENGINE_REFUSES:
            problem = _engine_problem(body)
            raise EngineRefused(param=problem.param, detail=problem.message)
        raise UpstreamFailed(upstream_status=answer.status)


class Reply:
    """An opened answer and everything the call holds. Use as `with reply:`; leaving the block gives it all back.

    This is one that comes whole; `StreamReply` is the other. What a piece holds counts as used once it is said to be `delivered`.
    """

    streams = False

    def __init__(self, answer: Answer, begin: bytes, call: Call, receipt: Receipt, lease: Lease) -> None:
        self.content_type = answer.content_type
        self._begin = begin
        self._endpoint = call.request.endpoint
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
        counted = counts.of_body(self._begin, self._endpoint)
        self._receipt.first_byte(lambda: counted)


class StreamReply(Reply):
    """Events, until `piece` gives nothing."""

    streams = True

    def __init__(self, answer: Answer, begin: bytes, call: Call, receipt: Receipt, lease: Lease) -> None:
        super().__init__(answer, begin, call, receipt, lease)
        self._answer = answer
        self._splitter = EventSplitter()
        self._reader = _reader(call.request)
        self._stream = call.request.endpoint.stream or NO_STREAM
        self._ends: list[bytes] = []

    async def piece(self) -> bytes:
        while True:
            try:
                data, self._begin = self._begin or await self._answer.piece(), b""
            except UpstreamError:
                held = self._reader.rest()
                if held:
                    return held
                raise
            if not data:
                return self._reader.rest() + self._splitter.rest()
            out = b""
            for event in self._splitter.feed(data):
                out += self._reader.read(event)
                if event.startswith(self._stream.ends):
                    self._ends.append(event)
            if out:
                return out

    def delivered(self) -> None:
        self._reader.delivered()
        self._receipt.first_byte(self._reader.usage)
        for event in self._ends:
            if event.startswith(self._stream.failed):
                self._receipt.engine_failed()
            else:
                self._receipt.whole()
        self._ends.clear()


def _reader(request: Request) -> Reader:
    stream = request.endpoint.stream
    if stream is not None and stream.asked:
        return StreamReader(request.wish, single_choice=request.single_choice, n=request.n)
    return PassingReader(counts.meter(request.endpoint.api))


async def _whole(answer: Answer) -> bytes:
    body = await answer.piece()
    while piece := await answer.piece():
        body += piece
    return body


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
