"""A small HTTP/1.1 server on a loopback port that acts scripts to the byte: resets, silences and stale connections included."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.fakes import Script


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class LoopbackServer:
    """`act` says what to do with each request. After `keeps` requests a connection closes instead of answering the next."""

    act: Callable[[Request], Script]
    keeps: int = 1_000_000
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection until either side ends it."""
        self.connections += 1
        try:
            for number in range(self.keeps + 1):
                request = await _read(reader)
                if request is None:
                    self.left.set()
                    return
                if number == self.keeps:
                    return
                self.requests.append(request)
                if not await self._answer(self.act(request), reader, writer):
                    return
        except ConnectionError:
            self.left.set()
        finally:
            writer.transport.abort()

    async def _answer(self, script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """True if the connection may be used again."""
        if script.head == "hangs":
            await self._until_left(reader)
        if script.head != "sent":
            return False
        head = f"HTTP/1.1 {script.status} -\r\ncontent-type: {script.content_type}\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        for piece in script.pieces:
            await asyncio.sleep(script.every_s)
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        if script.end == "hangs":
            await self._until_left(reader)
        if script.end != "proper":
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _until_left(self, reader: asyncio.StreamReader) -> None:
        while await reader.read(4096):
            pass
        self.left.set()


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Request(method, path, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


@asynccontextmanager
async def loopback(act: Callable[[Request], Script], *, keeps: int = 1_000_000) -> AsyncIterator[LoopbackServer]:
    """The server, listening on a port that the system chose."""
    acting, serving = LoopbackServer(act, keeps), set[asyncio.Task[None]]()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            await acting.serve(reader, writer)
        except asyncio.CancelledError:
            return
        finally:
            serving.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    acting.port = server.sockets[0].getsockname()[1]
    try:
        yield acting
    finally:
        server.close()
        for task in list(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await server.wait_closed()
        await asyncio.sleep(0)


def says(body: bytes, status: int = 200) -> Script:
    return Script(pieces=(body,) if body else (), status=status, content_type="application/json", every_s=0)
