"""One request of a client and its answer: the `receive` and `send` of an ASGI app, and how answers are written (RFC 9112)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from gateway.client_connection.message import STATUS_LINES
from gateway.protocol.asgi import Message, Scope

if TYPE_CHECKING:
    from gateway.client_connection.connection import ClientConnection

_BODILESS = frozenset({204, 304})
_LENGTH = b"content-length"
_SIZE_LINES = [b"%x\r\n" % size for size in range(2048)]  # most pieces of a stream are small


class Cycle:
    """`more` of its body is to come; its answer has `started`; it is `complete` when nothing more may be sent."""

    __slots__ = (
        "_asked_to_continue",
        "_bodiless",
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
        self.body: bytes | bytearray = b""
        self.came = 0
        self.began = 0.0
        self.more = True
        self.started = False
        self.complete = False
        self.task: asyncio.Task[None] | None = None
        self._connection = connection
        self._given = False
        self._head = b""
        self._bodiless = False
        self._chunked = False
        self._asked_to_continue = False
        self._waiter: asyncio.Future[None] | None = None

    # for the connection

    def feed(self, body: bytes) -> None:
        self.came += len(body)
        if not self.body:
            self.body = body
        else:
            if isinstance(self.body, bytes):  # many small chunks must not cost the square of their number
                self.body = bytearray(self.body)
            self.body += body
        self.wake()

    def end_unanswered(self) -> None:
        """Its client gets another answer than the app's: to the app it looks as if the client had left."""
        self.complete = True
        self.wake()

    def wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # for the app

    async def receive(self) -> Message:
        connection = self._connection
        while not (connection.lost or self.complete):
            if self.body or not (self.more or self._given):
                body, self.body = self.body, b""
                self._given = not self.more
                if connection.reading_paused:
                    connection.read_on()
                return {"type": "http.request", "body": bytes(body), "more_body": self.more}
            if self.more:
                self._ask_to_continue()
            await self._wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Waits before it writes, never after: when it returns, the message is on its way, and counts as sent.

        Nothing happens once the client is gone. Raises RuntimeError or ValueError for what is no HTTP answer.
        """
        connection = self._connection
        if connection.lost or (self.complete and not self.started):
            return
        if message["type"] == "http.response.start":
            self._head = self._make_head(message["status"], message.get("headers", ()))
            return
        if self.complete or not (self._head or self.started):
            raise RuntimeError("ASGI messages out of order: " + message["type"])
        body: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        if connection.write_paused and more:
            await connection.drain()
        if self._chunked:
            body = _chunk(body) if more else _chunk(body) + b"0\r\n\r\n"
        elif self._bodiless:
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

    def write(self, piece: bytes) -> bool:
        """See `gateway.protocol.asgi.ClientConnection.writer`."""
        connection = self._connection
        if connection.write_paused or not self.started or self.complete or self._bodiless or connection.is_closing():
            return False
        connection.write(_chunk(piece) if self._chunked else piece)
        return True

    def _make_head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        connection, version = self._connection, self.scope["http_version"]
        fields: list[bytes] = []
        count, has_length = 0, False
        for name, value in headers:
            if len(name) == len(_LENGTH) and name.lower() == _LENGTH:
                has_length = True
            fields += (name, b": ", value, b"\r\n")
            count += 1
        given = b"".join(fields)
        if given.count(b"\n") != count or given.count(b"\r") != count:
            raise ValueError("a header with a line break in it would let its author write the answer")
        own = b""
        self._bodiless = status in _BODILESS or self.scope["method"] == "HEAD"
        if not has_length and not self._bodiless:
            self._chunked = version == "1.1"
            if self._chunked:
                own = b"transfer-encoding: chunked\r\n"
            else:
                self.keep_alive = False  # the end of the connection is the end of the answer
        if self.more or connection.connections.closing:
            self.keep_alive = False
        if not self.keep_alive:
            own += b"connection: close\r\n"
        elif version == "1.0":
            own += b"connection: keep-alive\r\n"
        status_line = STATUS_LINES.get(status) or b"HTTP/1.1 %d -\r\n" % status
        return b"".join((status_line, connection.date(), given, own, b"\r\n"))

    def _ask_to_continue(self) -> None:
        """Clients with large bodies may wait for this before they send them (RFC 9110, 10.1.1)."""
        if self._asked_to_continue or self.came or self.scope["http_version"] != "1.1":
            return
        self._asked_to_continue = True
        for name, value in self.scope["headers"]:
            if name == b"expect" and value.lower() == b"100-continue":
                self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return

    async def _wait(self) -> None:
        if self._waiter is None or self._waiter.done():  # done: whoever waited was cancelled
            self._waiter = self._connection.loop.create_future()
        await self._waiter


def _chunk(body: bytes) -> bytes:
    """As a chunk (RFC 9112, 7.1); nothing for nothing, since an empty one would be the last."""
    size = len(body)
    if not size:
        return b""
    line = _SIZE_LINES[size] if size < len(_SIZE_LINES) else b"%x\r\n" % size
    return b"".join((line, body, b"\r\n"))
