"""The engine behind every gateway that is measured: answers at once, or as a stream at a fixed pace. `python -m … PORT`.

As cheap as Python allows, since it shares its core with the load: httptools' parser under a raw protocol on uvloop, answers
made beforehand (`answers`), one clock for all streams. It thinks nothing, queues nothing and never says no.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import defaultdict

import httptools
import uvloop

from benchmarks.gateway import answers

_HEALTHY = answers.response(b"")
_MODELS = answers.response(answers.models())
_COMPLETION = answers.response(answers.completion())
_NOT_FOUND = answers.response(b'{"detail":"Not Found"}', status="404 Not Found")
CHAT = b"/v1/chat/completions"


class Pace:
    """Writes every stream's chunks when they are due. Time goes in milliseconds; a millisecond's streams are written together.

    A stream that could not be written in time catches up by one chunk a millisecond, so the load offered does not depend on how
    busy the core is.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: defaultdict[int, list[Connection]] = defaultdict(list)
        self._reached = 0
        self._running = False
        self.open = 0
        self.completed = 0
        self.aborted = 0

    def begin(self, stream: Connection) -> None:
        self.open += 1
        now = self._now()
        if not self._running:
            self._running, self._reached = True, now
            self._loop.call_later(0.001, self._tick)
        self._put(stream, now + stream.every_ms)

    def _now(self) -> int:
        return int(self._loop.time() * 1000)

    def _put(self, stream: Connection, due: int) -> None:
        stream.due = due
        self._due[max(due, self._reached + 1)].append(stream)

    def _tick(self) -> None:
        now = self._now()
        late = self._reached
        self._reached = now
        for due in range(late + 1, now + 1):
            for stream in self._due.pop(due, ()):
                self._step(stream)
        self._running = self.open > 0
        if self._running:
            self._loop.call_later(0.001, self._tick)

    def _step(self, stream: Connection) -> None:
        if stream.gone:
            self.open -= 1
            self.aborted += 1
        elif stream.write_next():
            self._put(stream, stream.due + stream.every_ms)
        else:
            self.open -= 1
            self.completed += 1


class Connection(asyncio.Protocol):
    """One client connection, kept alive; one request at a time, whose body may come in pieces."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._parser = httptools.HttpRequestParser(self)
        self._frames: tuple[bytes, ...] = ()
        self._next = 0
        self.every_ms = 0
        self.due = 0
        self.gone = False

    def write_next(self) -> bool:
        """Write the next chunk; whether there are more."""
        self._transport.write(self._frames[self._next])
        self._next += 1
        return self._next < len(self._frames)

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream's transport is a Transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True

    # httptools' side

    def on_message_begin(self) -> None:
        self._path = b""
        self._body: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._path != CHAT:
            self._transport.write(self._other())
            return
        asked = answers.read(b"".join(self._body))
        if asked is None:
            self._transport.write(_COMPLETION)
            return
        self._frames, self._next, self.every_ms = answers.frames(asked), 0, asked.every_ms
        self._transport.write(answers.STREAM_HEAD)
        self._pace.begin(self)

    def _other(self) -> bytes:
        if self._path == b"/health":
            return _HEALTHY
        if self._path == b"/v1/models":
            return _MODELS
        if self._path == b"/bench/streams":
            counts = {"open": self._pace.open, "completed": self._pace.completed, "aborted": self._pace.aborted}
            return answers.response(json.dumps(counts).encode())
        return _NOT_FOUND


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    pace = Pace(loop)
    server = await loop.create_server(lambda: Connection(pace), "127.0.0.1", port, backlog=4096)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
