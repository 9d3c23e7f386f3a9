"""One client connection as an asyncio protocol: bytes in, requests to the app in their order, deadlines for the client's part.

One request runs at a time; pipelined ones wait, a few. Back-pressure: while a client does not read, the transport holds at most
its high-water mark and one answer, `send` waits, and no further request starts; while the app does not take a body, the socket
is not read. A client that sends no more (half-closes) counts as one that has left.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import httptools

from gateway.call_error import CallError
from gateway.client_connection.connections import Connections
from gateway.client_connection.cycle import Cycle
from gateway.client_connection.message import is_old_fashioned, last_answer, read_target, write_head
from gateway.errors import HeadTooLarge, MalformedHttp, RequestTimeout, ServerStopping, TooManyConnections
from gateway.protocol.asgi import CONNECTION, App, Scope

log = logging.getLogger(__name__)

_HIGH_WATER = 64 * 1024
_LEAST_READ = _HIGH_WATER * 3 // 4  # of an answer, in `stall_s`; the transport resumes at a quarter of its high-water mark
_BODY_AHEAD = 64 * 1024
_FED_AT_ONCE = 64 * 1024
_FIELD_BYTES = 32  # what a header field counts for on top of its text, as in HTTP/2 (RFC 9113, 6.5.2)
_MOST_PIPELINED = 8
_LINGER_S = 5.0
_NEVER = float("inf")
_TASK = "a client's request"
_ASGI = {"version": "3.0", "spec_version": "2.3"}


class ClientConnection(asyncio.Protocol):
    """`when_lost` is called in the moment in which it is lost. The deadlines are times of the loop; see `Connections`."""

    __deletable__ = ("_parser",)
    __slots__ = (
        "_app",
        "_app_state",
        "_arriving",
        "_client",
        "_deaf",
        "_drained",
        "_head_from",
        "_headers",
        "_hosts",
        "_in_head",
        "_last_word",
        "_lingers",
        "_parser",
        "_pipelined",
        "_running",
        "_server",
        "_tasks",
        "_told",
        "_transport",
        "_unread",
        "_untold",
        "_url",
        "connections",
        "deadline",
        "loop",
        "lost",
        "reading_paused",
        "when_lost",
        "write_deadline",
        "write_paused",
    )
    _transport: asyncio.Transport
    _client: tuple[str, int] | None
    _server: tuple[str, int] | None

    def __init__(self, app: App, connections: Connections, tasks: set[asyncio.Task[None]], app_state: dict[str, Any]) -> None:
        self._app = app
        self.connections = connections
        self._tasks = tasks
        self._app_state = app_state
        self._parser = httptools.HttpRequestParser(self)
        # Bytes that the parser has told us of, at which of them the latest head began, and what it may hold untold.
        self._told = self._head_from = self._untold = 0
        self._in_head = False
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._hosts = 0
        # A request goes from arriving, maybe through pipelined, to running; without a queue it is both until its end has come.
        self._arriving: Cycle | None = None
        self._pipelined: deque[Cycle] | None = None
        self._running: Cycle | None = None
        self._deaf = False  # what still comes is read and thrown away
        self._last_word: CallError | None = None  # to be said behind the answers to what came before
        self._lingers = False
        self._unread = 0
        self._drained: asyncio.Future[None] | None = None
        self.loop = asyncio.get_running_loop()
        self.lost = False
        self.reading_paused = False
        self.write_paused = False
        self.deadline = self.write_deadline = _NEVER
        self.when_lost: Callable[[], object] | None = None

    @property
    def task(self) -> asyncio.Task[None] | None:
        return None if self._running is None else self._running.task

    def writer(self) -> Callable[[bytes], bool] | None:
        return None if self._running is None else self._running.write

    def is_closing(self) -> bool:
        return self.lost or self._transport.is_closing()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's transport is a Transport
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._client = _address(transport.get_extra_info("peername"))
        self._server = _address(transport.get_extra_info("sockname"))
        self.deadline = self.loop.time() + self.connections.limits.head_s
        self.connections.came(self, self.loop)

    def data_received(self, data: bytes) -> None:
        if len(data) > _FED_AT_ONCE:  # in slices, so that limits are looked at in between
            for begin in range(0, len(data), _FED_AT_ONCE):
                self.data_received(data[begin : begin + _FED_AT_ONCE])
            return
        if self._deaf:
            return
        told = self._told
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            behind = upgrade.args[0]
        except httptools.HttpParserError as problem:
            self._refuse(_cause(problem))
            return
        else:
            self._untold = 0 if self._told != told else self._untold + len(data)
            if (self._in_head or self._untold) and self._is_too_large():
                self._refuse(HeadTooLarge(limit_bytes=self.connections.limits.head_bytes))
            return
        self._stay_with_http(data[behind:])

    def eof_received(self) -> None:
        """A client that sends no more is a client that has left: the transport closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = self._deaf = True
        self.deadline = self.write_deadline = _NEVER
        self.connections.left(self)
        self._wake_writer()
        if self._running is not None:
            self._running.wake()
        self._arriving = self._pipelined = None
        del self._parser  # it holds this, and the two would wait for the garbage collector
        if self.when_lost is not None:
            self.when_lost()

    def pause_writing(self) -> None:
        self.write_paused = True
        self._expect_reading()

    def resume_writing(self) -> None:
        self.write_paused = False
        self._wake_writer()
        if self.is_closing():
            return  # the rest has to be read in time too
        self.write_deadline = _NEVER
        if self._lingers:
            self.deadline = self.loop.time() + _LINGER_S
        elif self._running is None:
            self._go_on()

    # httptools' side

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_from = self._told
        self._url = b""
        self._headers = []
        self._hosts = 0
        if self._running is None and not self._deaf:
            self.deadline = self.loop.time() + self.connections.limits.head_s

    def on_url(self, url: bytes) -> None:
        self._told += len(url)
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._told += len(name) + len(value) + _FIELD_BYTES
        if self._in_head:  # trailers are nobody's business (RFC 9110, 6.5.1)
            name = name.lower()
            self._headers.append((name, value))
            if name == b"host":
                self._hosts += 1

    def on_headers_complete(self) -> None:
        """Raises a CallError, for `data_received`, where the parser takes what we do not."""
        limit = self.connections.limits.head_bytes
        if self._told - self._head_from > limit:
            raise HeadTooLarge(limit_bytes=limit)
        self._in_head = False
        parser = self._parser
        if self._deaf or parser.should_upgrade():
            return
        version = parser.get_http_version()
        if (version != "1.1" or self._hosts != 1) and not is_old_fashioned(version, self._headers):
            raise MalformedHttp
        cycle = self._arriving = Cycle(self, self._scope(version), keep_alive=parser.should_keep_alive())
        if self._running is None and not self._pipelined and not self.write_paused:
            self._start(cycle)
            return
        if self._running is None:
            self.deadline = _NEVER
        if self._pipelined is None:
            self._pipelined = deque()
        self._pipelined.append(cycle)

    def on_body(self, body: bytes) -> None:
        self._told += len(body)
        cycle = self._arriving
        if cycle is None:
            return
        cycle.feed(body)
        if cycle is self._running:
            limits = self.connections.limits
            self.deadline = cycle.began + limits.body_grace_s + cycle.came / limits.body_bytes_per_s
            if len(cycle.body) <= _BODY_AHEAD:
                return
        if not self.reading_paused and self._body_bytes() > _BODY_AHEAD:
            self.reading_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        cycle, self._arriving = self._arriving, None
        if cycle is None:
            return
        cycle.more = False
        if cycle is self._running:
            self.deadline = _NEVER
            cycle.wake()
        elif self._pipelined is not None and len(self._pipelined) == _MOST_PIPELINED:
            # Clients have to expect that some of what they pipeline is not answered (RFC 9112, 9.3.2).
            cycle.keep_alive = False
            self._deaf = True

    # requests

    def _is_too_large(self) -> bool:
        """The head so far, or what the parser keeps from us: the beginning of a field, be it of a head or of trailers."""
        limit = self.connections.limits.head_bytes
        return self._untold > limit or (self._in_head and self._told - self._head_from > limit)

    def _stay_with_http(self, rest: bytes) -> None:
        """A request for another protocol is answered as if it had not asked for one (RFC 9110, 7.8).

        Java's HTTP client asks for HTTP/2 with each first request. The parser gives up the body behind such a head, so the head
        is parsed once more without the wish.
        """
        method = self._parser.get_method()
        if method == b"CONNECT":
            self._refuse(MalformedHttp())
            return
        head = write_head(method, self._url, self._parser.get_http_version(), self._headers, without=b"upgrade")
        self._parser = httptools.HttpRequestParser(self)
        self.data_received(head + rest)

    def _scope(self, version: str) -> Scope:
        path, raw_path, query = read_target(self._url)
        scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self._server,
            "client": self._client,
            "scheme": "http",
            "method": self._parser.get_method().decode("ascii"),
            "root_path": "",
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self._headers,
            "extensions": {CONNECTION: self},
        }
        if self._app_state:
            scope["state"] = self._app_state.copy()
        return scope

    def _start(self, cycle: Cycle) -> None:
        connections = self.connections
        connections.waiting.pop(self, None)
        if connections.closing or not connections.has_room(self):
            self._say_last(ServerStopping() if connections.closing else TooManyConnections())
            return
        self._running = cycle
        cycle.began = self.loop.time()
        self.deadline = cycle.began + connections.limits.body_grace_s if cycle.more else _NEVER
        cycle.task = asyncio.Task(self._run(cycle), loop=self.loop, name=_TASK)  # a name of its own would have to be made
        self._tasks.add(cycle.task)

    async def _run(self, cycle: Cycle) -> None:
        try:
            await self._app(cycle.scope, cycle.receive, cycle.send)
        except asyncio.CancelledError:
            if not self.lost:
                raise
        except Exception:
            log.exception("%s %r failed", cycle.scope["method"], cycle.scope["path"])
        finally:
            if cycle.task is not None:
                self._tasks.discard(cycle.task)
            cycle.task = None
            if self._running is cycle:
                self._running = None
                self._transport.abort()  # a cut connection is the only honest end of an answer that is not whole

    # answers

    def answered(self, cycle: Cycle) -> None:
        """The answer is written. Then the next request, or the end."""
        self._running = None
        if self.lost:
            return
        if cycle.more or (self._deaf and not cycle.keep_alive):
            self._linger()
        elif cycle.keep_alive:
            self._go_on()
        else:
            self._close()

    def _go_on(self) -> None:
        """The next request, or the wait for one; not while the client has yet to read what it was sent."""
        self.deadline = _NEVER
        if self.write_paused:
            return
        if self._pipelined:
            self._start(self._pipelined.popleft())
        elif self._last_word is not None:
            self._say_last(self._last_word)
        else:
            limits = self.connections.limits
            self.deadline = self.loop.time() + (limits.head_s if self._in_head else limits.idle_s)
            self.connections.waiting[self] = None
        if self.reading_paused:
            self.read_on()

    def _refuse(self, error: CallError) -> None:
        """Take nothing more from this client. The error is its last answer, behind those to what it asked for before."""
        if self._deaf:
            return
        self._deaf = True
        self.deadline = _NEVER
        arriving, self._arriving = self._arriving, None
        if arriving is None:
            pass
        elif arriving is not self._running:
            assert self._pipelined is not None  # noqa: S101 - for the type checker
            self._pipelined.pop()
        elif arriving.started:
            return  # the answer to the very request that is broken is under way, and ends the connection
        else:
            arriving.end_unanswered()
            self._running = None
        self._last_word = error
        if self._running is None and not self._pipelined:
            self._say_last(error)

    def _say_last(self, error: CallError) -> None:
        self.write(last_answer(error, self._headers, self.date()))
        self._linger()

    def _linger(self) -> None:
        """Read on for a moment without listening: a closed socket with unread bytes would take the answer with it."""
        self._deaf = self._lingers = True
        self._arriving = self._pipelined = None
        self.deadline = _NEVER if self.write_paused else self.loop.time() + _LINGER_S
        self.connections.waiting[self] = None
        if not self._transport.is_closing():
            self.read_on()
            self._transport.write_eof()

    def _close(self) -> None:
        """Once all is read, which has to go on as fast as ever."""
        self._deaf = True
        self._pipelined = None
        self.deadline = _NEVER
        self._expect_reading()
        self._transport.close()

    # for `Connections` and for uvicorn

    def expire(self, now: float) -> None:
        if self.write_deadline < now:
            unread_before = self._unread
            self._expect_reading()
            if unread_before - self._unread < _LEAST_READ:
                self.drop()
        elif self.reading_paused:  # the client waits for us
            self.deadline = now + self.connections.limits.body_grace_s
        elif not self._deaf and (self._in_head or self._arriving is not None):
            self._refuse(RequestTimeout())
        else:
            self.drop()

    def drop(self) -> None:
        self.connections.left(self)
        self._transport.abort()

    def shutdown(self) -> None:
        """Take no further request; what runs may end."""
        self.connections.closing = True
        if self._running is None:
            self._close()
        else:
            self._running.keep_alive = False

    # for a `Cycle`

    def write(self, data: bytes) -> None:
        if not self.lost:
            self._transport.write(data)

    def date(self) -> bytes:
        return self.connections.date(self.loop.time())

    async def drain(self) -> None:
        """Until the client has read some of what is on its way."""
        while self.write_paused and not self.lost:
            if self._drained is None or self._drained.done():  # done: whoever waited was cancelled
                self._drained = self.loop.create_future()
            await self._drained

    def read_on(self) -> None:
        """Some of a body was taken."""
        if self.reading_paused and self._body_bytes() <= _BODY_AHEAD and not self.is_closing():
            self.reading_paused = False
            self._transport.resume_reading()

    def _body_bytes(self) -> int:
        """How much of bodies is here and nobody has taken."""
        waiting = sum(len(cycle.body) for cycle in self._pipelined) if self._pipelined else 0
        return waiting + (len(self._running.body) if self._running is not None else 0)

    def _expect_reading(self) -> None:
        self._unread = self._transport.get_write_buffer_size()
        self.write_deadline = self.loop.time() + self.connections.limits.stall_s

    def _wake_writer(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)


def _address(name: object) -> tuple[str, int] | None:
    """ASGI wants host and port: IPv6 has more, Unix sockets have none."""
    return (name[0], name[1]) if isinstance(name, tuple) else None


def _cause(problem: httptools.HttpParserError) -> CallError:
    """What a callback of ours raised is the parser error's context."""
    cause = problem.__context__
    if isinstance(cause, CallError):
        return cause
    if cause is not None and not isinstance(cause, httptools.HttpParserError):
        log.error("the gateway failed to read a request", exc_info=cause)
    return MalformedHttp()
