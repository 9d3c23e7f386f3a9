"""A client connection without a socket: a transport that remembers and acts like the real ones, and an app that does as told."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import httptools
import msgspec

from gateway.client_connection import ClientConnection, Connections
from gateway.protocol.asgi import App, Message, Receive, Scope, Send
from gateway.settings import ClientLimits

LIMITS = ClientLimits(head_bytes=4096, head_s=10, body_grace_s=20, body_bytes_per_s=1000, idle_s=65, stall_s=60, connections=3)


class FakeTransport(asyncio.Transport):
    """Takes everything at once while the client reads; tells of its loss in the next turn of the loop, as real ones do."""

    def __init__(self, protocol: ClientConnection, peer: object) -> None:
        super().__init__()
        self.written = b""
        self.reading = True
        self.ended = False  # nothing more can be written: the client sees the end behind what it has
        self.aborted = False
        self.lost = False
        self._protocol: ClientConnection | None = protocol
        self._peer = peer
        self._closing = False
        self._client_reads = True
        self._unread = 0
        self._high = 0
        self._paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": self._peer, "sockname": ("10.0.0.1", 8080)}.get(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = high or 0

    def get_write_buffer_size(self) -> int:
        return self._unread

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.ended:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._closing:
            return
        self.written += bytes(data)
        if not self._client_reads:
            self._unread += len(data)
            if self._unread > self._high and not self._paused and self._protocol is not None:
                self._paused = True
                self._protocol.pause_writing()

    def client_stops_reading(self) -> None:
        self._client_reads = False

    def client_reads(self, count: int) -> None:
        self._unread -= min(count, self._unread)
        if self._paused and self._unread <= self._high // 4 and self._protocol is not None:
            self._paused = False
            self._protocol.resume_writing()
        if self._closing and not self._unread:
            self._lose()

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self._closing = True
        self.ended = True
        if not self._unread:
            self._lose()

    def abort(self) -> None:
        self.aborted = self._closing = self.ended = True
        self._lose()

    def lose(self, error: Exception | None = None) -> None:
        """The client has left."""
        self._closing = self.ended = True
        self._lose(error)

    def _lose(self, error: Exception | None = None) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            self.lost = True
            asyncio.get_running_loop().call_soon(protocol.connection_lost, error)


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False

    @property
    def code(self) -> str:
        """Of an error in OpenAI's shape."""
        error = msgspec.json.decode(self.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert self.headers["content-type"] == "application/json"
        return str(error["code"])


def read_answers(written: bytes) -> list[Answer]:
    """What a client would make of these bytes; nothing may be left over."""
    answers: list[Answer] = []

    class Reader:
        def on_message_begin(self) -> None:
            answers.append(Answer())

        def on_header(self, name: bytes, value: bytes) -> None:
            assert name.decode() not in answers[-1].headers
            answers[-1].headers[name.decode()] = value.decode()

        def on_headers_complete(self) -> None:
            answers[-1].status = parser.get_status_code()

        def on_body(self, body: bytes) -> None:
            answers[-1].body += body

        def on_message_complete(self) -> None:
            answers[-1].whole = True

    parser = httptools.HttpResponseParser(Reader())
    parser.feed_data(written)
    return answers


@dataclass(frozen=True)
class Asked:
    """A request as an app sees it."""

    method: str
    path: str
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @classmethod
    def of(cls, scope: Scope, body: bytes) -> Asked:
        return cls(scope["method"], scope["path"], scope["query_string"], tuple(scope["headers"]), body)


async def whole_body(receive: Receive) -> bytes | None:
    """None if the client left first."""
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message["body"]
        if not message["more_body"]:
            return body


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}


def piece(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def answer(send: Send, body: bytes, status: int = 200) -> None:
    await send(start(status, (b"content-length", b"%d" % len(body))))
    await send(piece(body))


class Echo:
    """Answers each request with its body, or its path if that is empty, and remembers them all."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await whole_body(receive)
        if body is not None:
            self.asked.append(Asked.of(scope, body))
            await answer(send, body or scope["path"].encode())


class Wire:
    """A connection of a client to `app`."""

    def __init__(
        self,
        app: App,
        connections: Connections | None = None,
        *,
        peer: object = ("10.0.0.2", 50000),
        limits: ClientLimits = LIMITS,
    ) -> None:
        self.connections = connections or Connections(limits)
        self.tasks: set[asyncio.Task[None]] = set()
        self.connection = ClientConnection(app, self.connections, self.tasks, {})
        self.transport = FakeTransport(self.connection, peer)
        self.connection.connection_made(self.transport)

    def feed(self, *pieces: bytes) -> None:
        """What comes when nobody reads, or after the end, waits in the kernel: here it is lost."""
        for data in pieces:
            if self.transport.reading and not self.transport.is_closing() and data:
                self.connection.data_received(data)

    def half_close(self) -> None:
        self.connection.eof_received()
        self.transport.close()

    async def settle(self) -> None:
        await asyncio.sleep(0.001)

    async def ask(self, *pieces: bytes) -> None:
        for data in pieces:
            self.feed(data)
            await self.settle()

    @property
    def written(self) -> bytes:
        """Without the dates."""
        return re.sub(rb"date: [^\r]*\r\n", b"", self.transport.written)

    @property
    def answers(self) -> list[Answer]:
        return read_answers(self.transport.written)

    @property
    def statuses(self) -> list[int]:
        return [found.status for found in self.answers]

    @property
    def is_quiet(self) -> bool:
        """Lost, and nothing of it left."""
        gone = self.transport.lost and not self.tasks
        return gone and self.connection not in self.connections.open and self.connection not in self.connections.waiting


def request(method: str = "GET", path: str = "/", body: bytes = b"", *lines: str, chunks: Iterable[bytes] | None = None) -> bytes:
    """One, with a length, or in chunks."""
    head = [f"{method} {path} HTTP/1.1", "host: x", *lines]
    if chunks is not None:
        body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        head.append("transfer-encoding: chunked")
    elif body:
        head.append(f"content-length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


def answering(act: Callable[[Send], Any]) -> App:
    """An app that reads nothing and answers so."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await act(send)

    return app
