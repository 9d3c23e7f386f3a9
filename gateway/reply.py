"""What the client gets: the whole answer, or a stream that reads as one however many replicas it took."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from gateway.call_error import CallError
from gateway.dispatch import Dispatch
from gateway.errors import UpstreamError, UpstreamFailed, UpstreamUnreachable
from gateway.lease import Lease
from gateway.policy.estimate import usual_prompt
from gateway.ports import Headers, Take
from gateway.protocol import counts
from gateway.protocol.continuation import End
from gateway.protocol.counts import PassingReader
from gateway.protocol.endpoint import NO_STREAM, Endpoint
from gateway.protocol.openai import Request
from gateway.protocol.plain import Engine, PlainReader
from gateway.protocol.recorder import Recorder
from gateway.protocol.renaming import RenamingSplitter
from gateway.protocol.sse import EventSplitter
from gateway.protocol.stream_reader import Reader, StreamReader
from gateway.receipt import Receipt
from gateway.terms import Terms


class Reply:
    """An opened answer and everything the call holds. Use as `with reply:`; leaving the block gives it all back.

    `headers` are for its head. This is one that comes whole; `StreamReply` is the other. What a piece holds counts as used once
    it is said to be `delivered`.
    """

    streams = False

    def __init__(
        self, content_type: str, begin: bytes, endpoint: Endpoint, receipt: Receipt, lease: Lease, headers: Headers = ()
    ) -> None:
        self.content_type = content_type
        self.headers = headers
        self._begin = begin
        self._endpoint = endpoint
        self._receipt = receipt
        self._lease = lease

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.flow_into(None)
        self._lease.end(error)

    def flow_into(self, write: Callable[[bytes], bool] | None) -> None:
        """From now on `write` gets what can be passed on in the moment in which it comes, as long as it says True.

        That is neither returned by `piece` nor to be said to be `delivered`. Most of a stream goes this way, without waking the
        task that waits in `piece`.
        """

    async def piece(self) -> bytes:
        """What the client gets next: here, all of it. Raises UpstreamError, before which all that came was handed out."""
        return self._begin

    def delivered(self) -> None:
        """The last piece is with the client."""
        counted = counts.of_body(self._begin, self._endpoint)
        self._receipt.first_byte(lambda: counted)


class StreamReply(Reply):
    """Events, until `piece` gives nothing. If the replica fails in the middle, another goes on where one can."""

    streams = True

    def __init__(
        self,
        content_type: str,
        begin: bytes,
        request: Request,
        dispatch: Dispatch,
        receipt: Receipt,
        lease: Lease,
        headers: Headers = (),
    ) -> None:
        super().__init__(content_type, begin, request.endpoint, receipt, lease, headers)
        self._dispatch = dispatch
        self._named = request.named
        self._splitter = _splitter(request.named)
        self._reader = _reader(request, dispatch.engine)
        self._begun = False
        self._over = False
        self._failed = False
        self._problem: CallError | None = None
        self._write: Callable[[bytes], bool] | None = None
        self._take: Take | None = None
        self._held_up: bytes | None = None  # read, and to be returned by `piece`
        self._own_failure: Exception | None = None

    def flow_into(self, write: Callable[[bytes], bool] | None) -> None:
        self._write = write
        self._take = None if write is None else self._pass_on

    async def piece(self) -> bytes:
        while True:
            if self._problem is not None:
                raise self._problem
            if self._over:
                return b""
            try:
                out = await self._next()
            except UpstreamError as problem:
                out = await self._after(problem)
            if out:
                return out

    def delivered(self) -> None:
        reader = self._reader
        reader.delivered()
        if not self._begun:
            self._begun = True
            self._receipt.first_byte(reader.usage)
        if self._failed:
            self._receipt.engine_failed()
        elif reader.ended:
            self._receipt.whole()

    async def _next(self) -> bytes:
        """What comes of the next data. Raises UpstreamError."""
        reader, answer = self._reader, self._dispatch.answer
        data, self._begin = self._begin or (await answer.piece(self._take) if answer is not None else b""), b""
        if self._own_failure is not None:
            raise self._own_failure
        if not data:
            self._over = True
            if reader.ended:
                return reader.rest() + self._splitter.rest()
            return await self._after(UpstreamUnreachable(), ends_well=True)
        if self._held_up is None:
            out = self._read(data)
        else:
            out, self._held_up = self._held_up, None
        self._over = reader.stopped
        return out + await self._after_the_engines_word() if reader.broken else out

    def _read(self, data: bytes) -> bytes:
        """What the client gets for what came."""
        reader, events = self._reader, self._splitter.feed(data)
        return reader.read(events[0]) if len(events) == 1 else b"".join([reader.read(event) for event in events])

    def _pass_on(self, data: bytes) -> bool:
        """Reads what came and writes it. False where more is to be done than that, with what was read held up for `piece`."""
        try:
            out = self._read(data)
            if not self._reader.broken and not self._reader.stopped and self._written(out):
                return True
        except Exception as problem:  # noqa: BLE001 - it belongs to the task that waits, not to the connection's callback
            self._own_failure, out = problem, b""
        self._held_up = out
        return False

    def _written(self, out: bytes) -> bool:
        if out:
            if self._write is None or not self._write(out):
                return False
            self.delivered()
        return True

    async def _after(self, problem: UpstreamError, *, ends_well: bool = False) -> bytes:
        """The connection has ended too early: on elsewhere, or what is left and then the problem."""
        rest = await self._go_on(problem)
        if rest is not None:
            return rest
        if ends_well and self._problem is None:
            return self._reader.rest() + self._splitter.rest()
        self._problem = self._problem or problem
        return self._reader.rest()  # and not the half of an event

    async def _after_the_engines_word(self) -> bytes:
        """The engine has said itself that it cannot go on."""
        rest = await self._go_on(UpstreamFailed(upstream_status=500))
        if rest is not None:
            return rest
        self._failed = True
        return self._reader.rest()

    async def _go_on(self, problem: UpstreamError) -> bytes | None:
        """Elsewhere; returns what the client gets at once, which is something only if nothing else comes. None if it cannot."""
        try:
            step = await self._dispatch.go_on(self._reader, problem)
        except CallError as another:
            self._problem = another
            return None
        if step is None:
            return None
        self._splitter = _splitter(self._named)  # an event that came in half comes again whole
        self._over = isinstance(step, End)
        return step.data if isinstance(step, End) else b""


def opened(agreed: Terms, begin: bytes, dispatch: Dispatch, receipt: Receipt, lease: Lease, headers: Headers) -> Reply:
    """The reply to a call whose answer has begun. From here on it has what the call holds."""
    request = agreed.request
    if request.stream:
        return StreamReply(dispatch.content_type, begin, request, dispatch, receipt, lease.hand_on(), headers)
    return Reply(dispatch.content_type, agreed.echoed(begin), request.endpoint, receipt, lease.hand_on(), headers)


def _splitter(named: str | None) -> EventSplitter:
    return EventSplitter() if named is None else RenamingSplitter(named)


def _reader(request: Request, engine: Engine) -> Reader:
    stream = request.endpoint.stream or NO_STREAM
    if not stream.asked:
        return PassingReader(counts.meter(request.endpoint.api), stream)
    if engine is not Engine.VLLM:
        return PlainReader(request.wish, prompt_tokens=usual_prompt(len(request.prompt)))
    if request.plan is not None:
        return Recorder(request.wish, request.plan, again=request.again)
    return StreamReader(request.wish, single_choice=request.single_choice, n=request.n, again=request.again)
