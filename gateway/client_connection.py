"""A client's HTTP/1.1 connection: the server's side of RFC 9112 as an asyncio protocol over httptools' parser, speaking ASGI 3.

uvicorn keeps the sockets, signals and the lifespan; this replaces its protocol class, because the gateway needs what that one
does not give: bounds on how large a request's head is, how slowly a client may send and read, and how many connections there
are; word of a lost connection in the moment of the loss; and half the processor time a request. No WebSockets, no upgrades.

One request runs at a time; pipelined ones wait. Back-pressure: while a client does not read, the transport holds at most its
high-water mark and `send` waits; while the app does not read a body, the socket is not read.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from email.utils import formatdate
from http import HTTPStatus
from time import time
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

import httptools

from gateway.errors import CallError, HeadTooLarge, MalformedHttp, RequestTimeout, TooManyConnections
from gateway.protocol.asgi import CONNECTION, App, Message, Scope
from gateway.protocol.language import preferred

log = logging.getLogger(__name__)

_HIGH_WATER = 64 * 1024
_BODY_AHEAD = 64 * 1024
_MOST_PIPELINED = 8
_NEVER = float("inf")
_REASONS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Limits(Protocol):
    """What one client may ask of this process's attention; `gateway.settings.ClientLimits` says each in words."""

    @property
    def head_bytes(self) -> int: ...
    @property
    def head_s(self) -> float: ...
    @property
    def body_grace_s(self) -> float: ...
    @property
    def body_bytes_per_s(self) -> int: ...
    @property
    def idle_s(self) -> float: ...
    @property
    def stall_s(self) -> float: ...
    @property
    def connections(self) -> int: ...


class Connections:
    """All of one process: who is waiting for a request's bytes, oldest first, and the one clock that ends what takes too long."""

    LOOK_S = 0.5

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.open: set[ClientConnection] = set()
        self.waiting: dict[ClientConnection, None] = {}
        self.closing = False
        self._look: asyncio.TimerHandle | None = None
        self._date = b""
        self._date_until = 0.0

    def came(self, connection: ClientConnection, loop: asyncio.AbstractEventLoop) -> None:
        self.open.add(connection)
        if self._look is None:
            self._look = loop.call_later(self.LOOK_S, self.look, loop)
        if len(self.open) > self.limits.connections:
            for oldest in self.waiting:
                oldest.drop()
                return

    def has_room(self) -> bool:
        return len(self.open) <= self.limits.connections

    def look(self, loop: asyncio.AbstractEventLoop) -> None:
        """End every connection whose time is up, and look again while there are any."""
        now = loop.time()
        for late in [connection for connection in self.open if connection.deadline < now]:
            late.expire()
        self._look = loop.call_later(self.LOOK_S, self.look, loop) if self.open else None

    def date(self, now: float) -> bytes:
        """The Date header (RFC 9110, 6.6.1), made once a second."""
        if now >= self._date_until:
            self._date = f"date: {formatdate(time(), usegmt=True)}\r\n".encode()
            self._date_until = now + 1.0
        return self._date


class ClientConnection(asyncio.Protocol):
    """One connection. `when_lost` is called in the moment in which it is lost; `deadline` is the loop's time of its end."""

    __slots__ = (
        "_app",
        "_app_state",
        "_arriving",
        "_client",
        "_closing_after",
        "_connections",
        "_drained",
        "_head",
        "_head_bytes",
        "_headers",
        "_loop",
        "_lost",
        "_parser",
        "_pipelined",
        "_refusal",
        "_running",
        "_server",
        "_tasks",
        "_transport",
        "_url",
        "_write_paused",
        "deadline",
        "when_lost",
    )

    def __init__(self, app: App, connections: Connections, tasks: set[asyncio.Task[None]], app_state: dict[str, Any]) -> None:
        self._app = app
        self._connections = connections
        self._tasks = tasks
        self._app_state = app_state
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._lost = False
        self._closing_after = False  # what runs is the last on this connection
        self._head = False  # some of a request's head has come, and not yet its end
        self._head_bytes = 0
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._refusal: CallError | None = None
        self._arriving: Cycle | None = None
        self._running: Cycle | None = None
        self._pipelined: deque[Cycle] | None = None
        self._write_paused = False
        self._drained: asyncio.Future[None] | None = None
        self.deadline = _NEVER
        self.when_lost: Callable[[], object] | None = None

    def is_closing(self) -> bool:
        return self._lost or self._transport is None or self._transport.is_closing()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's transport is a Transport
        assert self._transport is not None  # noqa: S101 - for the type checker
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._client = transport.get_extra_info("peername")
        self._server = transport.get_extra_info("sockname")
        self.deadline = self._loop.time() + self._connections.limits.head_s
        self._connections.waiting[self] = None
        self._connections.came(self, self._loop)

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return  # what follows a refused request is read only so that the refusal can be
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._closing_after = True  # the request is answered as if it had not asked for another protocol
        except httptools.HttpParserError:
            self._refuse(self._refusal or MalformedHttp())
            return
        if self._head:
            self._head_bytes += len(data)
            if self._head_bytes > self._connections.limits.head_bytes:
                self._refuse(HeadTooLarge(limit_bytes=self._connections.limits.head_bytes))

    def eof_received(self) -> None:
        """A client that sends no more is a client that has left: the transport closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self.deadline = _NEVER
        self._connections.open.discard(self)
        self._connections.waiting.pop(self, None)
        self._wake_writer()
        for cycle in (self._running, self._arriving):
            if cycle is not None:
                cycle.wake()
        self._pipelined = None
        if self.when_lost is not None:
            self.when_lost()

    def pause_writing(self) -> None:
        self._write_paused = True
        self.deadline = self._loop.time() + self._connections.limits.stall_s

    def resume_writing(self) -> None:
        self._write_paused = False
        self.deadline = _NEVER
        self._wake_writer()

    # httptools' side

    def on_message_begin(self) -> None:
        self._head = True
        self._head_bytes = 0
        self._url = b""
        self._headers = []
        if self._running is None:
            self.deadline = self._loop.time() + self._connections.limits.head_s

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))
        self._head_bytes += len(name) + len(value)

    def on_headers_complete(self) -> None:
        self._head = False
        if self._head_bytes + len(self._url) > self._connections.limits.head_bytes:
            self._refusal = HeadTooLarge(limit_bytes=self._connections.limits.head_bytes)
            raise self._refusal
        cycle = self._arriving = Cycle(self, self._scope(), keep_alive=self._parser.should_keep_alive())
        if self._running is None:
            self._start(cycle)
            return
        if self._pipelined is None:
            self._pipelined = deque()
        self._pipelined.append(cycle)
        if len(self._pipelined) >= _MOST_PIPELINED and self._transport is not None:
            self._transport.pause_reading()

    def on_body(self, body: bytes) -> None:
        cycle = self._arriving
        if cycle is None:
            return
        cycle.came += len(body)
        if cycle is self._running:
            limits = self._connections.limits
            self.deadline = cycle.began + limits.body_grace_s + cycle.came / limits.body_bytes_per_s
        if not cycle.complete:
            cycle.body += body
            if len(cycle.body) > _BODY_AHEAD and self._transport is not None:
                self._transport.pause_reading()
            cycle.wake()

    def on_message_complete(self) -> None:
        cycle, self._arriving = self._arriving, None
        if cycle is None:
            return
        cycle.more = False
        if cycle is self._running:
            self.deadline = _NEVER
        if cycle.complete:  # its answer did not wait for its end
            self._close()
        cycle.wake()

    # requests and answers

    def _scope(self) -> Scope:
        url = self._url
        if not url.startswith(b"/"):  # the absolute form, which proxies are sent (RFC 9112, 3.2.2)
            url = b"/" + url.partition(b"://")[2].partition(b"/")[2] if b"://" in url else url
        path, _, query = url.partition(b"?")
        decoded = unquote_to_bytes(path) if b"%" in path else path
        scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": self._parser.get_http_version(),
            "server": self._server,
            "client": self._client,
            "scheme": "http",
            "method": self._parser.get_method().decode("ascii"),
            "root_path": "",
            "path": decoded.decode("utf-8", "replace"),
            "raw_path": path,
            "query_string": query,
            "headers": self._headers,
            "extensions": {CONNECTION: self},
        }
        if self._app_state:
            scope["state"] = self._app_state.copy()
        return scope

    def _start(self, cycle: Cycle) -> None:
        self._running = cycle
        self._connections.waiting.pop(self, None)
        cycle.began = self._loop.time()
        self.deadline = cycle.began + self._connections.limits.body_grace_s if cycle.more else _NEVER
        if self._refusal is not None:
            return
        if not self._connections.has_room():
            self._refuse(TooManyConnections())
            return
        cycle.task = self._loop.create_task(self._run(cycle))
        self._tasks.add(cycle.task)

    async def _run(self, cycle: Cycle) -> None:
        try:
            await self._app(cycle.scope, cycle.receive, cycle.send)
        except asyncio.CancelledError:
            if not self._lost:
                raise
        except Exception:
            log.exception("%s %s failed", cycle.scope["method"], cycle.scope["path"])
        finally:
            if cycle.task is not None:
                self._tasks.discard(cycle.task)
            if not cycle.complete and self._transport is not None:
                self._transport.abort()  # a cut connection is the only honest end of an answer that is not whole
            cycle.task = None

    def answered(self, cycle: Cycle) -> None:
        """The answer is written. Then the next request, or the end."""
        self._running = None
        if self._lost:
            return
        if cycle.more:  # the client is still sending a body that nobody wants: closing now could destroy the answer
            self._linger()
        elif self._closing_after or self._connections.closing or not cycle.keep_alive:
            self._close()
        elif self._pipelined:
            self._start(self._pipelined.popleft())
            if self._transport is not None:
                self._transport.resume_reading()
        else:
            limits = self._connections.limits
            self.deadline = self._loop.time() + (limits.head_s if self._head else limits.idle_s)
            self._connections.waiting[self] = None

    def _refuse(self, error: CallError) -> None:
        """Answer what cannot even become a request, and end the connection."""
        self._refusal = error
        if self._running is not None and (self._running.started or not self._running.more):
            self._closing_after = True  # an answer is under way, and its client made the mistake afterwards
            return
        cycle, self._running = self._running, None
        if cycle is not None:
            cycle.complete = True
            cycle.wake()
        header = dict(self._headers).get(b"accept-language", b"").decode("latin-1")
        body = error.body(preferred(header))
        head = [_REASONS[error.status], self._connections.date(self._loop.time())]
        head += [b"%b: %b\r\n" % pair for pair in error.headers()]
        head.append(b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body))
        self.write(b"".join([*head, body]))
        self._linger()

    def _linger(self) -> None:
        """Read on for a moment without listening: a closed socket with unread bytes would take the answer with it."""
        self._refusal = self._refusal or MalformedHttp()
        self.deadline = min(self.deadline, self._loop.time() + 2.0)
        if self._transport is not None:
            self._transport.resume_reading()
            if self._transport.can_write_eof():
                self._transport.write_eof()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # for `Connections` and for uvicorn

    def expire(self) -> None:
        """Its time is up: for its request's bytes, for the next request, or for reading our answer."""
        waited_for_a_request = self._head or (self._running is not None and self._running.more)
        self.deadline = _NEVER
        if waited_for_a_request and not self._write_paused and self._refusal is None:
            self._refuse(RequestTimeout())
        else:
            self.drop()

    def drop(self) -> None:
        """End it without a word."""
        self._connections.waiting.pop(self, None)
        if self._transport is not None:
            self._transport.abort()

    def shutdown(self) -> None:
        """Take no further request; what runs may end."""
        self._connections.closing = True
        if self._running is None:
            self._close()

    # for a `Cycle`

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._lost:
            self._transport.write(data)

    def date(self) -> bytes:
        return self._connections.date(self._loop.time())

    async def drain(self) -> None:
        """Until the client has read some of what is on its way."""
        while self._write_paused and not self._lost:
            self._drained = self._drained or self._loop.create_future()
            await self._drained

    def body_taken(self) -> None:
        if self._transport is not None and not self._lost:
            self._transport.resume_reading()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    @property
    def write_paused(self) -> bool:
        return self._write_paused

    @property
    def lost(self) -> bool:
        return self._lost

    def _wake_writer(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)


_ASGI = {"version": "3.0", "spec_version": "2.3"}


class Cycle:
    """One request and its answer: the `receive` and `send` of an ASGI app."""

    __slots__ = (
        "_asked_to_continue",
        "_chunked",
        "_connection",
        "_given",
        "_head",
        "_waiter",
        "began",
        "body",
        "came",
        "complete",
        "keep_alive",
        "more",
        "scope",
        "started",
        "task",
    )

    def __init__(self, connection: ClientConnection, scope: Scope, *, keep_alive: bool) -> None:
        self.scope = scope
        self.keep_alive = keep_alive
        self.body = b""
        self.came = 0
        self.began = 0.0
        self.more = True
        self.started = False
        self.complete = False
        self.task: asyncio.Task[None] | None = None
        self._connection = connection
        self._given = False
        self._head = b""
        self._chunked = False
        self._asked_to_continue = False
        self._waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def receive(self) -> Message:
        connection = self._connection
        while not (connection.lost or self.complete):
            if self.body or not (self.more or self._given):
                body, self.body = self.body, b""
                self._given = not self.more
                if self.more:
                    connection.body_taken()
                return {"type": "http.request", "body": body, "more_body": self.more}
            if self.more:
                self._ask_to_continue()
            await self._wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        connection = self._connection
        if connection.lost or (self.complete and self.started is False):
            return
        if message["type"] == "http.response.start":
            self._head = self._make_head(message["status"], message.get("headers", ()))
            return
        if self.complete or not (self._head or self.started):
            raise RuntimeError("ASGI messages out of order: " + message["type"])
        body: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        if self._chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                body += b"0\r\n\r\n"
        elif self.scope["method"] == "HEAD":
            body = b""
        if not self.started:
            body = self._head + body
            self.started = True
            self._head = b""
        if body:
            connection.write(body)
        if not more:
            self.complete = True
            connection.answered(self)
        elif connection.write_paused:
            await connection.drain()

    def _make_head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        parts = [_REASONS.get(status) or b"HTTP/1.1 %d -\r\n" % status, self._connection.date()]
        has_length = False
        for name, value in headers:
            has_length = has_length or name.lower() == b"content-length"
            parts.append(b"%b: %b\r\n" % (name, value))
        if not has_length and status not in (204, 304) and self.scope["method"] != "HEAD":
            self._chunked = self.scope["http_version"] == "1.1"
            if self._chunked:
                parts.append(b"transfer-encoding: chunked\r\n")
            else:
                self.keep_alive = False  # the end of the connection is the end of the answer
        if self.more:
            self.keep_alive = False
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        elif self.scope["http_version"] == "1.0":
            parts.append(b"connection: keep-alive\r\n")
        parts.append(b"\r\n")
        return b"".join(parts)

    def _ask_to_continue(self) -> None:
        """Clients with large bodies may wait for this before they send them (RFC 9110, 10.1.1)."""
        if self._asked_to_continue or self.came:
            return
        self._asked_to_continue = True
        if any(name == b"expect" and value.lower() == b"100-continue" for name, value in self.scope["headers"]):
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _wait(self) -> None:
        if self._waiter is None:
            self._waiter = self._connection.loop.create_future()
        await self._waiter
