"""A call's dealings with replicas: a place, the choice, the request; elsewhere before the first byte; on elsewhere after it.

A dispatch has one place, which it keeps until its end: who has to begin again elsewhere does not queue again. At any time it
holds one attempt at most: its share of a replica's load, and its answer. Ending the dispatch gives all of that back. What a
client gets of the answers is `gateway.reply`'s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from gateway.call_error import CallError
from gateway.errors import (
    QUEUE_POSITION,
    EngineRefused,
    NotOfferedByModel,
    ServerOverloaded,
    UpstreamError,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.lease import Lease
from gateway.policy.routing import Flight, Router, Work
from gateway.ports import Answer, Ports, Replica, Tell
from gateway.protocol import plain, refusal
from gateway.protocol.continuation import Ask, End, Send, Step
from gateway.protocol.openai import Request
from gateway.protocol.plain import Engine
from gateway.protocol.stream_reader import Reader
from gateway.receipt import Receipt
from gateway.terms import Terms

MOST_ATTEMPTS = 3
MOST_BREAKS = 4  # of one stream; a request that kills its replicas must not kill them all
_ENGINE_REFUSES = frozenset({400, 413, 422})
_ENGINE_HAS_NOT = frozenset({404, 405, 501})  # which addresses vLLM has depends on what kind of model it serves
_ENGINE_IS_FULL = frozenset({429, 503})

T = TypeVar("T")


class Dispatch:
    """`deadline` is the clock's time after which nothing is tried or continued elsewhere; `tell` is for when the call waits;
    `most_attempts` are made before an answer has begun.
    """

    def __init__(
        self,
        ports: Ports,
        router: Router[Replica],
        terms: Terms,
        receipt: Receipt,
        *,
        call_id: str,
        deadline: float,
        tell: Tell | None = None,
        most_attempts: int = MOST_ATTEMPTS,
    ) -> None:
        self._ports = ports
        self._router = router
        self._terms = terms
        self._request = request = terms.request
        self._call_id = call_id
        self._work = Work(request.prompt, terms.ask.prompt_tokens + terms.ask.output_tokens, terms.ask.tenant)
        self._receipt = receipt
        self._deadline = deadline
        self._tell = tell
        self._most_attempts = most_attempts
        self._place = ports.gate.place(request.model, terms.ask, terms.like, receipt.used if request.stream else None)
        self._has_place = False
        self._attempt = Lease()
        self._flight: Flight | None = None
        self._breaks = 0
        self.answer: Answer | None = None
        self.replica_id = ""
        self.engine = Engine.VLLM

    @property
    def content_type(self) -> str:
        return self.answer.content_type if self.answer is not None else ""

    def end(self, error: BaseException | None = None) -> None:
        """Give back the place, and what the last attempt holds if that was not done yet."""
        try:
            self._attempt.end(error)
        finally:
            if self._has_place:
                self._has_place = False
                self._place.give_back(self._receipt.used())

    async def begin(self) -> bytes:
        """Have the request answered; returns the answer's first piece, or all of it where it does not stream.

        Until then nothing has gone out, so that a replica that is gone, broken or full is left for another. Raises a CallError.
        """
        request = self._request

        async def send(replica: Replica) -> bytes:
            now = self._ports.clock.monotonic
            sent = now()
            answer = await self._send(replica, request.endpoint.engine_path, _body_for(replica, request))
            begin = await (answer.piece() if request.stream else whole(answer))
            if self._flight is not None:
                self._router.first_token(self._flight, now())
            if request.stream:
                self._place.first_token(now() - sent)
            return begin

        await self._take_place()
        begin = await self._somewhere(send, [], repeatable=request.repeatable)
        self._tell = None  # from here on the stream is the engine's
        return begin

    async def go_on(self, reader: Reader, problem: UpstreamError) -> Step | None:
        """After a break: let another replica go on. None if none can; an End if there was nothing left to do.

        Raises a CallError where another could, but none is to be had.
        """
        step = reader.go_on()
        if step is None or isinstance(step, End):
            return step
        if self._breaks >= MOST_BREAKS or self._ports.clock.monotonic() >= self._deadline:
            return None
        self._breaks += 1
        broken = self.replica_id
        self._attempt.end(problem)

        async def send(replica: Replica) -> Step | None:
            if replica.engine is not Engine.VLLM:
                return None
            step = reader.go_on()
            while isinstance(step, Ask):
                step = reader.go_on(await self._ask(replica, step))
            if isinstance(step, Send):
                await self._send(replica, step.path, step.body)
            return step

        await self._place.resume()
        return await self._somewhere(send, [broken], repeatable=True)

    async def _somewhere(self, send: Callable[[Replica], Awaitable[T]], tried: list[str], *, repeatable: bool) -> T:
        attempts = 0
        while True:
            try:
                return await self._at_one(send, tried)
            except (UpstreamUnreachable, UpstreamFailed, ServerOverloaded) as problem:
                attempts += 1
                self._attempt.end(problem)
                harmless = repeatable or isinstance(problem, ServerOverloaded) or not problem.fields.get("reached", True)
                if attempts >= self._most_attempts or not harmless or self._ports.clock.monotonic() >= self._deadline:
                    if isinstance(problem, ServerOverloaded):
                        problem.retry_after_s = self._place.retry_after_s()  # a promise: not for every attempt
                    raise
                if isinstance(problem, UpstreamFailed) and not self._has_others(tried):
                    raise
            except BaseException as problem:
                self._attempt.end(problem)
                raise
            await self._place.resume(self._tell)

    async def _at_one(self, send: Callable[[Replica], Awaitable[T]], tried: list[str]) -> T:
        """A replica, and what is to be done there."""
        ports, attempt, now = self._ports, self._attempt, self._ports.clock.monotonic
        ready = ports.fleet.ready(self._request.model)
        replica = self._router.pick(self._work, ready, now(), tried) or self._router.pick(self._work, ready, now())
        if replica is None:  # between a fleet's shrinking and the gate's hearing of it
            raise UpstreamUnreachable(reached=False)
        tried.append(replica.id)
        ports.fleet.call_began(replica)
        self._flight = flight = self._router.began(replica.id, self._work, now())
        attempt.hold(lambda error: self._left(replica, flight, error))
        done = await send(replica)
        ports.fleet.call_succeeded(replica)
        self._receipt.answered_by(replica.id)
        self.replica_id, self.engine = replica.id, replica.engine
        return done

    async def _take_place(self) -> None:
        place = self._place
        await place.take(self._tell)
        self._has_place = True
        self._receipt.started()
        if place.position:
            self._terms.headers.append((QUEUE_POSITION, b"%d" % place.position))

    def _has_others(self, tried: list[str]) -> bool:
        return any(replica.id not in tried for replica in self._ports.fleet.ready(self._request.model))

    def _left(self, replica: Replica, flight: Flight, error: BaseException | None) -> None:
        self._router.ended(flight, self._receipt.used().completion_tokens or 0, self._ports.clock.monotonic())
        if error is None:
            return
        fleet = self._ports.fleet
        match error:
            case UpstreamUnreachable():
                fleet.connection_broke(replica)
            case UpstreamTimeout() | UpstreamFailed():
                fleet.call_failed(replica)
            case CallError():  # a proper answer, though not the one that was hoped for
                fleet.call_succeeded(replica)
            case _:
                pass

    async def _send(self, replica: Replica, path: str, body: bytes) -> Answer:
        if replica.known_as is not None:
            body = plain.named(body, replica.known_as)
        answer = self.answer = await self._ports.upstream.open(
            replica, path, body, self._call_id, repeatable=self._request.repeatable
        )
        self._attempt.hold(answer.close)
        if answer.status != 200:
            raise self._refusal(answer.status, await _beginning(answer))
        return answer

    async def _ask(self, replica: Replica, ask: Ask) -> bytes:
        async with await self._ports.upstream.open(replica, ask.path, ask.body, self._call_id, repeatable=True) as answer:
            body = await whole(answer)
            return body if answer.status == 200 else b""

    def _refusal(self, status: int, body: bytes) -> CallError:
        model = self._request.model
        if status in _ENGINE_IS_FULL:
            return ServerOverloaded(model=model, retry_after_s=0.0)  # computed where it goes out
        if status in _ENGINE_HAS_NOT:
            return NotOfferedByModel(param="model", model=model, path=self._request.endpoint.path)
        if status in _ENGINE_REFUSES:
            said = refusal.read(body)
            return EngineRefused(param=said.param, detail=said.message)
        return UpstreamFailed(upstream_status=status)


def _body_for(replica: Replica, request: Request) -> bytes:
    """The client's request, with what the gateway may ask of this replica's engine on its own account."""
    if replica.engine is Engine.VLLM:
        return request.body
    asks = request.stream and request.endpoint.stream is not None and request.endpoint.stream.asked
    return plain.asking(request.own_body) if asks else request.own_body


async def _beginning(answer: Answer) -> bytes:
    """As much of a refusal as is worth reading."""
    body = b""
    while len(body) < refusal.MOST_BYTES and (piece := await answer.piece()):
        body += piece
    return body[: refusal.MOST_BYTES]


async def whole(answer: Answer) -> bytes:
    body = await answer.piece()
    while piece := await answer.piece():
        body += piece
    return body
