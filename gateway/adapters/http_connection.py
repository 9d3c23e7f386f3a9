"""One HTTP/1.1 connection to a replica, as an asyncio protocol over httptools' parser (RFC 9112). One exchange at a time.

It writes a request that is in memory whole, and hands out the answer's head and then its body as it comes. It does not connect,
keep or choose connections (`gateway.adapters.http_upstream`), and decides nothing about what an answer means. Its tests feed it
byte by byte, without a socket.

Back-pressure: while nobody takes the body, at most about `_MOST_BUFFERED` bytes are read ahead; then reading pauses, and the
engine's own connection fills up. Timeouts count only while we wait for the replica, never while the client keeps us waiting.
"""

from __future__ import annotations

import asyncio
from collections import deque

import httptools

from gateway.errors import UpstreamError, UpstreamTimeout, UpstreamUnreachable
from gateway.ports import Take

_MOST_BUFFERED = 256 * 1024


class HttpConnection(asyncio.Protocol):
    """`exchange` sends a request and waits for the head; `piece` gives the body. Then it may be kept, if `reusable`."""

    __deletable__ = ("_parser",)

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._closed = False
        self._parser = httptools.HttpResponseParser(self)
        self._watch: asyncio.TimerHandle | None = None
        self._watch_at = 0.0
        self._waiter: asyncio.Future[None] | None = None
        self._passes_to: Take | None = None  # while somebody waits
        self._declined = b""
        self._pieces: deque[bytes] = deque()
        self._begin()
        self._complete = True  # no exchange is under way

    def _begin(self) -> None:
        self._has_head = False
        self._complete = False
        self._error: UpstreamError | None = None
        self._buffered = 0
        self._paused = False
        self._ends_with_connection = True
        self._surplus = False
        self._timeout_s = 0.0
        self._deadline = 0.0
        self.status = 0
        self.content_type = "application/json"
        self.got_bytes = False

    @property
    def reusable(self) -> bool:
        """Whether another exchange may follow: the last is complete, nothing came behind it, and neither side closes."""
        read = self._complete and not self._pieces and not self._declined
        return read and self._error is None and not self._closed and not self._ends_with_connection

    async def exchange(self, request: bytes, timeout_s: float) -> None:
        """Send a whole request; returns when the answer's head has come. Raises UpstreamUnreachable or UpstreamTimeout."""
        self._begin()
        if self._transport is None or self._transport.is_closing():
            raise UpstreamUnreachable
        self._transport.write(request)
        while not self._has_head:
            if self._error is not None:
                raise self._error
            await self._wait(timeout_s)

    async def piece(self, timeout_s: float, take: Take | None = None) -> bytes:
        """What has come of the body since the last piece; nothing at its end. Raises UpstreamUnreachable or UpstreamTimeout.

        While it waits, `take` is shown what comes, and takes it by saying True; it must not raise. What it declines is a piece by
        itself, whatever comes behind it.
        """
        while True:
            if self._declined:
                data, self._declined = self._declined, b""
                return data
            if self._pieces:
                return self._take()
            if self._error is not None:
                raise self._error
            if self._complete:
                return b""
            self._passes_to = take
            try:
                await self._wait(timeout_s)
            finally:
                self._passes_to = None

    def abort(self) -> None:
        """Close at once; an engine that works on an answer stops doing so."""
        self._stop_watching()
        if self._transport is not None:
            self._transport.abort()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's transport is a Transport

    def data_received(self, data: bytes) -> None:
        self.got_bytes = True
        if self._complete:  # nobody asked for it: never use this connection again
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail(UpstreamUnreachable())
            self.abort()
        if self._passes_to is None or not self._pass_on(self._passes_to):
            self._wake()

    def eof_received(self) -> None:
        """The replica sends no more. An answer without a length ends so; any other is broken. We close as well."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._stop_watching()
        del self._parser  # it holds this, and the two would wait for the garbage collector
        if not self._complete:
            if self._has_head and self._ends_with_connection and exc is None:
                self._complete = True
            else:
                self._fail(UpstreamUnreachable())
        self._wake()

    # httptools' side

    def on_message_begin(self) -> None:
        if self._complete:  # a second answer to one request: none of it is ours, and the connection is not to be trusted
            self._ends_with_connection = True
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._surplus:
            return
        name = name.lower()
        if name == b"content-type":
            self.content_type = value.decode("latin-1")
        elif name == b"content-length" or (name == b"transfer-encoding" and value.lower().endswith(b"chunked")):
            self._ends_with_connection = False

    def on_headers_complete(self) -> None:
        if self._surplus:
            return
        self.status = self._parser.get_status_code()
        if self.status >= 200:
            self._has_head = True

    def on_body(self, body: bytes) -> None:
        if self._surplus:
            return
        self._pieces.append(body)
        self._buffered += len(body)
        if self._buffered > _MOST_BUFFERED and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._surplus:
            return
        if self.status < 200:  # 100 Continue, 103 Early Hints: the answer comes behind it
            self._ends_with_connection = True
            return
        self._complete = True
        if not self._parser.should_keep_alive():
            self._ends_with_connection = True

    # waiting

    async def _wait(self, timeout_s: float) -> None:
        """Until something happens, at most `timeout_s`. One timer serves many waits: it looks at the deadline when it fires."""
        self._timeout_s = timeout_s
        self._deadline = self._loop.time() + timeout_s
        if self._watch is None or self._watch_at > self._deadline:
            self._watch_until(self._deadline)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _pass_on(self, take: Take) -> bool:
        """Whether nobody needs to wake: what came was taken, and more is to come."""
        if self._complete or self._error is not None or self._waiter is None or self._waiter.done():
            return False
        if self._pieces:
            data = self._take()
            if not take(data):
                self._passes_to = None
                self._declined = data
                return False
            self._deadline = self._loop.time() + self._timeout_s
        return True

    def _look_at_the_clock(self) -> None:
        self._watch = None
        if self._waiter is None:
            return
        if self._loop.time() < self._deadline:
            self._watch_until(self._deadline)
            return
        self._fail(UpstreamTimeout(timeout_s=self._timeout_s))
        self._wake()

    def _watch_until(self, at: float) -> None:
        self._stop_watching()
        self._watch = self._loop.call_at(at, self._look_at_the_clock)
        self._watch_at = at

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _fail(self, error: UpstreamError) -> None:
        if self._error is None:
            self._error = error

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _take(self) -> bytes:
        taken = self._pieces.popleft() if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._buffered = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return taken
