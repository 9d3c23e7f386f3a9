"""Hand-written stand-ins for the gateway's ports, a loop in which waiting takes no time, and a client that may leave."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import msgspec

from gateway.call_error import CallError
from gateway.entry import Entry
from gateway.errors import UpstreamTimeout, UpstreamUnreachable
from gateway.policy.routing import Pressure
from gateway.ports import Headers, Principal, Replica, Take
from gateway.protocol.asgi import CONNECTION, App, Message
from gateway.protocol.openai import Request
from gateway.protocol.usage import Usage


class FakeClock:
    """Stands still until told to advance."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1_750_000_000.0 + self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class LoopClock(FakeClock):
    """The running loop's own time, virtual where the loop is a VirtualLoop."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def time(self) -> float:
        return 1_750_000_000.0 + self.monotonic()


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting for a timer, moves the clock to it."""

    passed_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("every task waits for something that no task will do")
        if not ready and timeout:
            self.passed_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """For code without sockets and threads: sleeps and timeouts end at once, in their order, and `time()` says so."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.passed_s


@dataclass
class FakeTenants:
    """Keys in a dictionary; a revoked one is gone at once."""

    keys: dict[str, Principal] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def principal(self, secret: str) -> Principal | None:
        self.asked.append(secret)
        return self.keys.get(secret)


class FakeFleet:
    """Ready replicas as set; broken ones leave until set again."""

    def __init__(self, replicas: Mapping[str, Sequence[Replica]]) -> None:
        self._ready = {model: tuple(of_model) for model, of_model in replicas.items()}
        self.broken: list[str] = []
        self.now_starting: dict[str, int] = {}
        self.told: list[tuple[str, str]] = []
        self._listeners: list[Callable[[str], None]] = []

    def models(self) -> Sequence[str]:
        return tuple(self._ready)

    def ready(self, model: str) -> Sequence[Replica]:
        return self._ready.get(model, ())

    def starting(self, model: str) -> int:
        return self.now_starting.get(model, 0)

    def call_began(self, replica: Replica) -> None:
        self.told.append(("began", replica.id))

    def call_succeeded(self, replica: Replica) -> None:
        self.told.append(("succeeded", replica.id))

    def call_failed(self, replica: Replica) -> None:
        self.told.append(("failed", replica.id))

    def connection_broke(self, replica: Replica) -> None:
        self.broken.append(replica.id)
        self.set_ready(replica.model, [other for other in self.ready(replica.model) if other.id != replica.id])

    def on_change(self, tell: Callable[[str], None]) -> None:
        self._listeners.append(tell)

    def on_pressure(self, tell: Callable[[str, Pressure], None]) -> None:
        self.tell_pressure = tell

    def waiting_for(self) -> Sequence[str]:
        return [f"a ready replica of {model}" for model, replicas in self._ready.items() if not replicas]

    def set_ready(self, model: str, replicas: Sequence[Replica]) -> None:
        self._ready[model] = tuple(replicas)
        for tell in self._listeners:
            tell(model)


@dataclass(frozen=True)
class Script:
    """What an engine does with one call: how its head comes, its pieces, and how it ends. Each piece takes `every_s`."""

    pieces: tuple[bytes, ...] = ()
    status: int = 200
    content_type: str = "text/event-stream; charset=utf-8"
    head: Literal["sent", "refused", "reset", "hangs"] = "sent"
    end: Literal["proper", "reset", "hangs"] = "proper"
    every_s: float = 0.01


class FakeAnswer:
    def __init__(self, upstream: FakeUpstream, script: Script) -> None:
        self.status = script.status
        self.content_type = script.content_type
        self.ended = False
        self._upstream = upstream
        self._script = script
        self._pieces = list(script.pieces)

    async def piece(self, take: Take | None = None) -> bytes:
        script, silent_s = self._script, self._upstream.between_chunks_s
        while self._pieces:
            await asyncio.sleep(script.every_s)
            piece = self._pieces.pop(0)
            if take is None or not take(piece):
                return piece
        if script.end == "hangs":
            await asyncio.sleep(silent_s)
            raise UpstreamTimeout(timeout_s=silent_s)
        if script.end == "reset":
            raise UpstreamUnreachable
        self.ended = True
        return b""

    def close(self, error: BaseException | None = None) -> None:
        self._upstream.open_now -= 1
        self._upstream.left_early += not self.ended

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class FakeUpstream:
    """Engines that act their scripts, one a call; the last script goes on for all further calls."""

    def __init__(self, *scripts: Script, first_byte_s: float = 60.0, between_chunks_s: float = 60.0) -> None:
        self._scripts = list(scripts)
        self._first_byte_s = first_byte_s
        self.between_chunks_s = between_chunks_s
        self.calls: list[tuple[str, str, bytes, str]] = []
        self.open_now = 0
        self.left_early = 0

    async def open(self, replica: Replica, path: str, body: bytes, request_id: str, *, repeatable: bool = True) -> FakeAnswer:
        self.calls.append((replica.id, path, body, request_id))
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        answer = FakeAnswer(self, script)
        self.open_now += 1
        try:
            await self._send_head(script)
        except BaseException:
            answer.close()
            raise
        return answer

    async def _send_head(self, script: Script) -> None:
        await asyncio.sleep(script.every_s)
        if script.head == "hangs":
            await asyncio.sleep(self._first_byte_s)
            raise UpstreamTimeout(timeout_s=self._first_byte_s)
        if script.head != "sent":
            raise UpstreamUnreachable


@dataclass
class FakeLedger:
    entries: list[Entry] = field(default_factory=list)
    stuck: bool = False

    def is_stuck(self) -> bool:
        return self.stuck

    def record(self, entry: Entry) -> None:
        self.entries.append(entry)


@dataclass
class FakeReservation:
    settled: list[Usage | None] = field(default_factory=list)

    def settle(self, used: Usage | None) -> None:
        self.settled.append(used)

    def headers(self) -> Headers:
        return ()


@dataclass
class FakeLimits:
    """Lets every call through, or none if `refuses` is set."""

    refuses: CallError | None = None
    reservations: list[FakeReservation] = field(default_factory=list)

    async def reserve(self, principal: Principal, request: Request) -> FakeReservation:
        if self.refuses is not None:
            raise self.refuses
        self.reservations.append(FakeReservation())
        return self.reservations[-1]


@dataclass
class Received:
    """What a client got before it left, if it did."""

    messages: list[Message] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def pieces(self) -> list[bytes]:
        return [message["body"] for message in self.messages if message["type"] == "http.response.body"]

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = msgspec.json.decode(self.body)["error"]
        return error

    @property
    def ended(self) -> bool:
        last = self.messages[-1] if self.messages else {"type": "nothing"}
        return last["type"] == "http.response.body" and not last.get("more_body")


@dataclass(frozen=True)
class Leaving:
    """When a client leaves: once it has received so many messages, or after so many seconds. Or the first `send` that fails."""

    after_messages: int | None = None
    after_s: float | None = None
    send_fails_at: int | None = None


STAYS = Leaving()


class FakeConnection:
    """What our own server shows of a client's connection. Of pieces that need not wait it takes two, and then declines one."""

    def __init__(self, received: Received, gone: asyncio.Event, leaving: Leaving) -> None:
        self.task: asyncio.Task[None] | None = None
        self.when_lost: Callable[[], object] | None = None
        self._received = received
        self._gone = gone
        self._leaving = leaving
        self._offered = 0

    def leave(self) -> None:
        self._gone.set()
        if self.when_lost is not None:
            self.when_lost()

    def sent(self, message: Message) -> None:
        self._received.messages.append(message)
        if len(self._received.messages) == self._leaving.after_messages:
            if self.when_lost is None:
                self.leave()
            else:  # or what was just sent would seem not to have got out
                asyncio.get_running_loop().call_soon(self.leave)

    def is_closing(self) -> bool:
        return self._gone.is_set()

    def writer(self) -> Callable[[bytes], bool]:
        return self._write

    def _write(self, piece: bytes) -> bool:
        self._offered += 1
        so_far = len(self._received.messages)
        if self.is_closing() or not self._offered % 3 or so_far < 2 or so_far == self._leaving.send_fails_at:
            return False
        self.sent({"type": "http.response.body", "body": piece, "more_body": True})
        return True


async def _run(answering: Awaitable[None]) -> None:
    await answering


class FakeClient:
    """Calls an ASGI app the way servers do: once the client is gone, `receive` says so and `send` does nothing.

    With `shows_connection` as our own server does it, else as others do.
    """

    shows_connection = False

    def __init__(self, app: App, **headers: str) -> None:
        self._app = app
        self._headers = headers

    async def post(self, path: str, body: bytes | Iterable[bytes], leaving: Leaving = STAYS, **headers: str) -> Received:
        return await self.request("POST", path, [body] if isinstance(body, bytes) else body, leaving, **headers)

    async def request(
        self, method: str, path: str, body: Iterable[bytes] = (b"",), leaving: Leaving = STAYS, *, query: str = "", **headers: str
    ) -> Received:
        received, gone, uploads = Received(), asyncio.Event(), list(body)
        if leaving.after_messages == 0:
            gone.set()
        connection = FakeConnection(received, gone, leaving)
        if leaving.after_s is not None:
            asyncio.get_running_loop().call_later(leaving.after_s, connection.leave)

        async def receive() -> Message:
            if uploads:
                return {"type": "http.request", "body": uploads.pop(0), "more_body": bool(uploads)}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if leaving.send_fails_at == len(received.messages):
                raise OSError("the client's connection is gone")
            await asyncio.sleep(0)
            if gone.is_set():
                return
            connection.sent(message)

        scope = self._scope(method, path, headers) | {"query_string": query.encode()}
        if self.shows_connection:
            scope["extensions"] = {CONNECTION: connection}
        connection.task = asyncio.create_task(_run(self._app(scope, receive, send)))
        await connection.task
        return received

    def _scope(self, method: str, path: str, headers: Mapping[str, str]) -> dict[str, Any]:
        named = {**self._headers, **headers}
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in named.items()],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8080),
        }
