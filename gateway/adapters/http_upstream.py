"""Calls to replicas over kept connections: a pool, one try more on a new connection, and what each call's end means for its own.

A replica may close an idle connection at the moment at which we use it. That is told from a dead replica by trying once more on a
new connection, and only while not one byte of an answer has come.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from gateway.adapters.http_connection import HttpConnection
from gateway.errors import TooManyConnections, UpstreamUnreachable
from gateway.ports import Replica, Take
from gateway.protocol.plain import Engine

# Uvicorn, which vLLM's server runs on, closes idle connections after 5 s at its default.
KEPT_S = 4.0
# Of descriptors, ports or buffers: no replica is to blame.
_OUR_OWN_LACK = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS})


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: to connect; to the head of the answer; between two pieces of its body."""

    connect_s: float
    first_byte_s: float
    between_chunks_s: float


@dataclass(frozen=True, slots=True)
class _Address:
    """A base URL, taken apart once. `head` is the request's head up to the path's end, `tail` what follows it."""

    host: str
    port: int
    head: bytes
    tail: bytes

    @classmethod
    def of(cls, base_url: str) -> _Address:
        url = urlsplit(base_url)
        host = url.hostname or ""
        tail = f" HTTP/1.1\r\nhost: {url.netloc}\r\ncontent-type: application/json\r\naccept-encoding: identity\r\n"
        return cls(host, url.port or 80, f"POST {url.path.rstrip('/')}".encode(), tail.encode())

    def request(self, path: str, body: bytes, request_id: str | None) -> bytes:
        named = "" if request_id is None else f"x-request-id: {request_id}\r\n"
        own = f"{named}content-length: {len(body)}\r\n\r\n"
        return b"".join((self.head, path.encode(), self.tail, own.encode(), body))


class HttpUpstream:
    """Use as `async with`; the pool lives as long as the block. Plain http: replicas are on the cluster's own network."""

    def __init__(self, timeouts: Timeouts, *, kept_s: float = KEPT_S) -> None:
        self._timeouts = timeouts
        self._kept_s = kept_s
        self._addresses: dict[str, _Address] = {}
        self._idle: dict[str, list[tuple[float, HttpConnection]]] = {}
        self._sweeps: dict[str, asyncio.TimerHandle] = {}

    async def __aenter__(self) -> HttpUpstream:
        return self

    async def __aexit__(self, *_: object) -> None:
        for sweep in self._sweeps.values():
            sweep.cancel()
        for kept in self._idle.values():
            for _since, connection in kept:
                connection.abort()
        self._idle.clear()

    async def open(self, replica: Replica, path: str, body: bytes, request_id: str, *, repeatable: bool = True) -> HttpAnswer:
        base_url = replica.base_url
        address = self._addresses.get(base_url)
        if address is None:
            address = self._addresses[base_url] = _Address.of(base_url)
        # Some other servers take nothing but a UUID there: llama-cpp-python answers 400 without a word.
        request = address.request(path, body, request_id if replica.engine is Engine.VLLM else None)
        connection = self._kept(base_url) if repeatable else None
        while True:
            is_new = connection is None
            if connection is None:
                connection = await self._connect(address)
            try:
                await connection.exchange(request, self._timeouts.first_byte_s)
            except BaseException as problem:  # whatever stops us, cancellation too, the engine must hear of it
                connection.abort()
                if is_new or connection.got_bytes or not isinstance(problem, UpstreamUnreachable):
                    raise
                connection = None
            else:
                return HttpAnswer(self, base_url, connection, self._timeouts)

    async def _connect(self, address: _Address) -> HttpConnection:
        try:
            async with asyncio.timeout(self._timeouts.connect_s):
                _, connection = await asyncio.get_running_loop().create_connection(HttpConnection, address.host, address.port)
        except OSError as problem:  # TimeoutError is one
            if problem.errno in _OUR_OWN_LACK:
                raise TooManyConnections from problem
            raise UpstreamUnreachable(reached=False) from problem
        return connection

    def _kept(self, base_url: str) -> HttpConnection | None:
        """The connection that was used last, since it is the least likely to be stale. Old ones are closed on the way."""
        idle = self._idle.get(base_url)
        if not idle:
            return None
        oldest = asyncio.get_running_loop().time() - self._kept_s
        while idle:
            since, connection = idle.pop()
            if since >= oldest and connection.reusable:
                return connection
            connection.abort()
        return None

    def _put_back(self, base_url: str, connection: HttpConnection) -> None:
        if not connection.reusable:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        self._idle.setdefault(base_url, []).append((loop.time(), connection))
        if base_url not in self._sweeps:
            self._sweeps[base_url] = loop.call_later(self._kept_s, self._sweep, base_url)

    def _sweep(self, base_url: str) -> None:
        """Close what was idle too long, so that replicas that are gone leave nothing here."""
        del self._sweeps[base_url]
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self._kept_s
        kept = []
        for since, connection in self._idle.pop(base_url, []):
            if since > oldest and connection.reusable:
                kept.append((since, connection))
            else:
                connection.abort()
        if kept:
            self._idle[base_url] = kept
            self._sweeps[base_url] = loop.call_later(self._kept_s, self._sweep, base_url)
        else:
            self._addresses.pop(base_url, None)


class HttpAnswer:
    """`async with` closes it; a connection that can be kept goes back to the pool."""

    __slots__ = ("_base_url", "_begun", "_connection", "_timeouts", "_upstream", "content_type", "status")

    def __init__(self, upstream: HttpUpstream, base_url: str, connection: HttpConnection, timeouts: Timeouts) -> None:
        self.status = connection.status
        self.content_type = connection.content_type
        self._upstream = upstream
        self._base_url = base_url
        self._connection = connection
        self._timeouts = timeouts
        self._begun = False

    def piece(self, take: Take | None = None) -> Awaitable[bytes]:
        if self._begun:
            return self._connection.piece(self._timeouts.between_chunks_s, take)
        self._begun = True
        return self._connection.piece(self._timeouts.first_byte_s)  # an engine may send its head long before its first token

    def close(self, error: BaseException | None = None) -> None:
        self._upstream._put_back(self._base_url, self._connection)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
