"""One kept client connection on a raw asyncio protocol: `ask` and get the whole answer. Costs little a piece."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from benchmarks.gateway.load.answer import AnswerReader


class Broken(Exception):
    """The connection ended, or could not be made, before the answer was complete."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`at` is when its last byte came, by `time.perf_counter`."""

    status: int
    whole: bytes
    at: float


class Connection(asyncio.Protocol):
    """One exchange at a time. Closed at the end of its `async with`."""

    def __init__(self) -> None:
        self._reader = AnswerReader()
        self._waiter: asyncio.Future[float] | None = None
        self._begun: asyncio.Future[None] | None = None
        self.closed = False

    @classmethod
    async def to(cls, port: int) -> Connection:
        """Raises Broken."""
        try:
            _, connection = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        except OSError as problem:
            raise Broken(str(problem)) from problem
        return connection

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.abort()

    @property
    def status(self) -> int:
        """The present answer's, as soon as its head has come; 0 before."""
        return self._reader.status

    async def ask(self, request: bytes) -> Answer:
        """Raises Broken."""
        if self.closed:
            raise Broken("closed while idle")
        self._reader.begin()
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        at = await self._waiter
        return Answer(self._reader.status, self._reader.whole(), at)

    async def begin(self, request: bytes) -> int:
        """Send, and return as soon as the answer's head has come: its status. For streams that are then left. Raises Broken."""
        self._begun = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        await self._begun
        return self._reader.status

    def abort(self) -> None:
        self.closed = True
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream's transport is a Transport

    def data_received(self, data: bytes) -> None:
        if self._reader.feed(data) and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(time.perf_counter())
        if self._begun is not None and self._reader.status and not self._begun.done():
            self._begun.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        for waiter in (self._waiter, self._begun):
            if waiter is not None and not waiter.done():
                waiter.set_exception(Broken("closed by the other side"))
