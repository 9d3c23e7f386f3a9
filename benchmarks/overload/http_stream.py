"""One client connection that notes when an answer's tokens came, and keeps nothing else of it. Bytes in, facts out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)
_RETRY_AFTER = re.compile(rb"\r\nretry-after:\s*(\d+(?:\.\d+)?)", re.IGNORECASE)
_CODE = re.compile(rb'"code"\s*:\s*"?(\w+)')
_COUNT = re.compile(rb'"completion_tokens"\s*:\s*(\d+)')
_EVENT = b"data: {"
_ERROR = b'data: {"error"'
_END = b"\r\n0\r\n\r\n"
_LONGEST_REFUSAL = 4096


class Reading:
    """Of one answer. `on_tokens(count)` is told how many tokens a piece brought."""

    def __init__(self, on_tokens: Callable[[int], None]) -> None:
        self.status = 0
        self.retry_after_s: float | None = None
        self.error = ""
        self._on_tokens = on_tokens
        self._head = b""
        self._tail = b""
        self._chunked = False
        self._missing = 0
        self._tokens = 0

    def feed(self, data: bytes) -> bool:
        """Whether the answer ends with this piece."""
        if self.status:
            return self._body(data)
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            return False
        head, body = self._head[: end + 2], self._head[end + 4 :]
        self._head = b""
        self.status = int(head[9:12])
        self._chunked = _CHUNKED.search(head) is not None
        length, retry_after = _LENGTH.search(head), _RETRY_AFTER.search(head)
        self._missing = int(length[1]) if length else 0
        self.retry_after_s = float(retry_after[1]) if retry_after else None
        return self._body(body) if body else not self._chunked and self._missing == 0

    def _body(self, data: bytes) -> bool:
        if self.status != 200 or _ERROR in data:
            self._read_error(data)
        elif _EVENT in data:
            self._count(data)
        if not self._chunked:
            self._missing -= len(data)
            return self._missing <= 0
        self._tail = (self._tail + data)[-len(_END) :]
        return self._tail == _END

    def _count(self, data: bytes) -> None:
        """By the engine's own counting where it is in the chunks, else a token for each event."""
        counts = _COUNT.findall(data)
        tokens = max(map(int, counts)) if counts else self._tokens + data.count(_EVENT)
        if tokens > self._tokens:
            came, self._tokens = tokens - self._tokens, tokens
            self._on_tokens(came)

    def _read_error(self, data: bytes) -> None:
        if not self.error and (code := _CODE.search(data[-_LONGEST_REFUSAL:])):
            self.error = code[1].decode()


class StreamConnection(asyncio.Protocol):
    """Kept alive; one answer at a time. `ask` returns when the answer has ended; whether it did so in order."""

    def __init__(self) -> None:
        self.closed = False
        self._reading: Reading | None = None
        self._waiter: asyncio.Future[bool] | None = None

    @classmethod
    async def to(cls, port: int) -> StreamConnection:
        """Raises OSError."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return connection

    async def ask(self, request: bytes, reading: Reading) -> bool:
        if self.closed:
            return False
        self._reading = reading
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiter

    def abort(self) -> None:
        self.closed = True
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream's transport is a Transport

    def data_received(self, data: bytes) -> None:
        if self._reading is not None and self._reading.feed(data):
            self._end(True)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._end(False)

    def _end(self, in_order: bool) -> None:
        self._reading = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(in_order)
