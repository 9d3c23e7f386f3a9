"""A call's whole life on one screen: identify, reserve, gate, pick, open; then the reply, whose end gives everything back.

Whatever a call takes is pushed on one exit stack, in the order of taking. If a stage fails, the stack unwinds at once; if all
succeed, the stack goes into the Reply, and the response object that sends the reply unwinds it, however that ends.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType

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
from gateway.policy.routing import LeastLoaded
from gateway.ports import Answer, Clock, Entry, Ports, Principal, Replica
from gateway.protocol import counts
from gateway.protocol.endpoint import Stream
from gateway.protocol.openai import Request
from gateway.protocol.sse import EventSplitter
from gateway.protocol.usage import UsageCutter, UsageMeter
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
        """Take all that the call needs and open the engine's answer.

        Raises a CallError. Whatever happens, the call leaves a ledger entry.
        """
        ports = self._ports
        async with AsyncExitStack() as held:
            entry = _entry(call.id, call.request.endpoint.path, call.principal, ports.clock, call.request)
            receipt = held.enter_context(Receipt(entry, ports.clock, ports.ledger))
            self._check_model(call.request.model, call.principal)
            reservation = await ports.limits.reserve(call.principal, call.request.model)
            held.callback(lambda: reservation.settle(receipt.used()))
            answer = await self._open(call, receipt, held)
            return Reply(answer, call.request, receipt, held.pop_all())

    @contextmanager
    def recording_refusal(self, call_id: str, endpoint: str, principal: Principal) -> Iterator[None]:
        """A request of a known key that cannot be read is a call too: it leaves an entry, of no model."""
        clock = self._ports.clock
        try:
            yield
        except CallError:
            with Receipt(_entry(call_id, endpoint, principal, clock), clock, self._ports.ledger):
                raise

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

    async def _open(self, call: Call, receipt: Receipt, held: AsyncExitStack) -> Answer:
        """A place, a replica, and the head of its answer. Goes elsewhere when a replica is gone or full, before any byte."""
        model = call.request.model
        tried: list[str] = []
        while True:
            async with AsyncExitStack() as attempt:
                await attempt.enter_async_context(self._ports.gate.place(model))
                receipt.started()
                ready = self._ports.fleet.ready(model)
                replica = self._load.choose(ready, tried) or self._load.choose(ready)
                try:
                    if replica is None:
                        tried.append("none was ready")
                        raise UpstreamUnreachable
                    tried.append(replica.id)
                    attempt.enter_context(self._in_flight(replica))
                    answer = await attempt.enter_async_context(
                        self._ports.upstream.open(replica, call.request.endpoint.engine_path, call.request.body, call.id)
                    )
                    if answer.status != 200:
                        await self._refuse(call.request, answer)
                except (UpstreamUnreachable, ServerOverloaded) as problem:
                    if replica is not None and isinstance(problem, UpstreamUnreachable):
                        self._ports.fleet.connection_broke(replica)
                    if len(tried) >= MOST_ATTEMPTS:
                        raise
                    continue
                attempt.enter_context(self._believed(replica))
                receipt.answered_by(replica.id, answer.status)
                held.push_async_exit(attempt.pop_all())
                return answer

    @contextmanager
    def _in_flight(self, replica: Replica) -> Iterator[None]:
        self._load.begin(replica.id)
        try:
            yield
        finally:
            self._load.end(replica.id)

    @contextmanager
    def _believed(self, replica: Replica) -> Iterator[None]:
        """Until its answer breaks off in the middle."""
        try:
            yield
        except UpstreamUnreachable:
            self._ports.fleet.connection_broke(replica)
            raise

    async def _refuse(self, request: Request, answer: Answer) -> None:
        body = b"".join([piece async for piece in answer.body()])
        if answer.status in _ENGINE_IS_FULL:
            raise ServerOverloaded(model=request.model, retry_after_s=self._ports.gate.retry_after_s(request.model))
        if answer.status in _ENGINE_HAS_NOT:
            raise NotOfferedByModel(param="model", model=request.model, path=request.endpoint.path)
        if answer.status in _ENGINE_REFUSES:
            problem = _engine_problem(body)
            raise EngineRefused(param=problem.param, detail=problem.message)
        raise UpstreamFailed(upstream_status=answer.status)


class Reply:
    """An opened answer and everything the call holds. Use as `async with reply:`; leaving the block gives it all back."""

    def __init__(self, answer: Answer, request: Request, receipt: Receipt, held: AsyncExitStack) -> None:
        self.content_type = answer.content_type
        self._answer = answer
        self._request = request
        self._receipt = receipt
        self._held = held

    async def __aenter__(self) -> Reply:
        await self._held.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._held.__aexit__(kind, error, trace)

    def body(self) -> AsyncIterator[bytes]:
        """What the client gets, piece by piece. What a piece holds counts as used once the next one is asked for."""
        stream = self._request.endpoint.stream
        if stream is None or not self._request.stream:
            return self._whole()
        return self._chunks(stream) if stream.asked else self._events(stream)

    async def _whole(self) -> AsyncIterator[bytes]:
        body = b"".join([piece async for piece in self._answer.body()])
        counted = counts.of_body(body, self._request.endpoint)
        self._receipt.first_byte(lambda: counted)
        yield body

    async def _events(self, stream: Stream) -> AsyncIterator[bytes]:
        """A stream whose own events have the counts: they pass as they are, each whole, so that an error event may follow any."""
        splitter = EventSplitter()
        meter = counts.meter(self._request.endpoint.api)
        async for data in self._answer.body():
            events = splitter.feed(data)
            if events:
                yield b"".join(events)
                self._receipt.first_byte(meter.usage)
            for event in events:
                meter.saw(event)
                self._note(event, stream)
        if rest := splitter.rest():
            yield rest

    def _note(self, event: bytes, stream: Stream) -> None:
        if event.startswith(stream.failed):
            self._receipt.engine_failed()
        elif event.startswith(stream.last):
            self._receipt.whole()

    async def _chunks(self, stream: Stream) -> AsyncIterator[bytes]:
        splitter = EventSplitter()
        cutter = UsageCutter(self._request.wish, single_choice=self._request.single_choice)
        meter = UsageMeter(single_choice=self._request.single_choice, n=self._request.n)
        try:
            async for data in self._answer.body():
                events = splitter.feed(data)
                out = b"".join([piece for event in events for piece in cutter.cut(event)])
                if out:
                    yield out
                    self._receipt.first_byte(meter.usage)
                for event in events:
                    meter.saw(event)
                    self._note(event, stream)
        except UpstreamError:
            held = b"".join(cutter.rest())
            if held:
                yield held
            raise
        rest = b"".join(cutter.rest()) + splitter.rest()
        if rest:
            yield rest


def _entry(call_id: str, endpoint: str, principal: Principal, clock: Clock, request: Request | None = None) -> Entry:
    return Entry(
        id=call_id,
        started_at=clock.time(),
        endpoint=endpoint,
        model=request.model if request else "",
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
