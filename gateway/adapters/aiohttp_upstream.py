"""Calls to replicas through aiohttp: one keep-alive pool, bytes in, bytes out, foreign errors mapped once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from gateway.errors import UpstreamTimeout, UpstreamUnreachable
from gateway.ports import Replica


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: to connect; to the head of the answer; between two pieces of its body."""

    connect_s: float
    first_byte_s: float
    between_chunks_s: float


class AiohttpUpstream:
    """Use as `async with`; the pool lives as long as the block."""

    # Uvicorn, which vLLM's server runs on, closes idle connections after 5 s at its default.
    _KEEP_ALIVE_S = 4.0

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._sessions: tuple[aiohttp.ClientSession, ...] = ()

    async def __aenter__(self) -> AiohttpUpstream:
        kept = aiohttp.TCPConnector(limit=0, keepalive_timeout=self._KEEP_ALIVE_S)
        new = aiohttp.TCPConnector(limit=0, force_close=True)
        self._sessions = (self._session(kept), self._session(new))
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in self._sessions:
            await session.close()

    def _session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeouts.connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    @asynccontextmanager
    async def open(self, replica: Replica, path: str, body: bytes, request_id: str) -> AsyncIterator[AiohttpAnswer]:
        response = await self._post(replica.base_url + path, body, request_id)
        try:
            yield AiohttpAnswer(response, self._timeouts.between_chunks_s)
        finally:
            response.close() if not response.content.at_eof() else response.release()

    async def _post(self, url: str, body: bytes, request_id: str) -> aiohttp.ClientResponse:
        """Once more if a kept connection turned out to be closed: the server hung up before it read the request.

        The second try makes a new connection, since all that are kept may be closed.
        """
        assert self._sessions, "open() outside of the async with block"  # noqa: S101
        headers = {"content-type": "application/json", "accept-encoding": "identity", "x-request-id": request_id}
        for last, session in enumerate(self._sessions):
            try:
                async with _deadline(self._timeouts.first_byte_s):
                    return await session.post(url, data=body, headers=headers, allow_redirects=False)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as problem:
                if last or isinstance(problem, aiohttp.ClientConnectorError):
                    raise UpstreamUnreachable from problem
            except aiohttp.ClientError as problem:
                raise UpstreamUnreachable from problem
        raise AssertionError("the last try returns or raises")


@asynccontextmanager
async def _deadline(timeout_s: float) -> AsyncIterator[None]:
    """UpstreamTimeout after that many seconds; aiohttp's own timeouts, which are for connecting, pass as they are."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except aiohttp.ServerTimeoutError:
        raise
    except TimeoutError as problem:
        raise UpstreamTimeout(timeout_s=timeout_s) from problem


class AiohttpAnswer:
    def __init__(self, response: aiohttp.ClientResponse, between_chunks_s: float) -> None:
        self.status = response.status
        self.content_type = response.headers.get("content-type", "application/json")
        self._response = response
        self._between_chunks_s = between_chunks_s

    async def body(self) -> AsyncIterator[bytes]:
        content = self._response.content
        try:
            while True:
                async with _deadline(self._between_chunks_s):
                    piece = await content.readany()
                if not piece:
                    return
                yield piece
        except aiohttp.ClientError as problem:
            raise UpstreamUnreachable from problem
