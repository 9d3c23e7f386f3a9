"""A whole gateway under uvicorn, in front of a scripted engine; both in threads of this process, on ports of their own."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from gateway.adapters import sqlite, sqlite_ledger, sqlite_tenants
from gateway.adapters.system_clock import SystemClock
from gateway.entry import Entry
from gateway.protocol.openai import UsageWish
from gateway.server import server as gateway_server
from gateway.settings import GatewaySettings, QueueSettings, StaticFleet
from tests.fakes import Script
from tests.loopback import LoopbackServer, Request, loopback, says
from tests.vllm_stream import Generation, chat

MODEL = "daemun-demo"


@dataclass
class Engine:
    """Answers like vLLM with one generation; `act` may be replaced for anything else."""

    generation: Generation = field(default_factory=lambda: chat("안녕", "하세요", ". ", "대문", "입니다"))
    every_s: float = 0.0002
    script: Script | None = None

    def act(self, request: Request) -> Script:
        if request.path == "/health":
            return says(b"")
        if request.path == "/v1/models":
            return says(json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "vllm"}]}).encode())
        if request.method == "GET":
            return says(b"", 404)
        if self.script is not None:
            return self.script
        asked = json.loads(request.body)
        if not asked.get("stream"):
            return says(self._whole())
        options = asked.get("stream_options") or {}
        wish = UsageWish.EVERY_CHUNK if options.get("continuous_usage_stats") else UsageWish(bool(options.get("include_usage")))
        return Script(pieces=tuple(self.generation.events(wish)), every_s=self.every_s)

    def _whole(self) -> bytes:
        text = "".join(step.says["content"] for step in self.generation.steps)
        used = self.generation.used_after(len(self.generation.steps))
        usage = {"prompt_tokens": used.prompt_tokens, "completion_tokens": used.completion_tokens, "total_tokens": 0}
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return json.dumps(
            {"id": "1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice], "usage": usage}
        ).encode()


@dataclass
class Running:
    """The gateway, and all that a test wants of it."""

    port: int
    key: str
    state_dir: Path
    engine: Engine
    server: LoopbackServer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_until_ready(self) -> None:
        until = time.monotonic() + 5
        while httpx.get(f"{self.url}/health/ready").status_code != 200:
            assert time.monotonic() < until, "the engine was not found"
            time.sleep(0.02)

    def entries(self, count: int) -> list[Entry]:
        """The newest entries, once there are that many: the mover takes them into the database."""
        until = time.monotonic() + 5
        with closing(sqlite.connect(sqlite.store_path(self.state_dir))) as connection:
            while time.monotonic() < until:
                found = sqlite_ledger.read_entries(connection, last=count)
                if len(found) == count:
                    return found
                time.sleep(0.05)
        raise AssertionError(f"fewer than {count} entries")


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def engine_server(engine: Engine) -> Iterator[LoopbackServer]:
    with engine_thread(engine) as server:
        yield server


@pytest.fixture
def wanted() -> dict[str, object]:
    """What a test wants otherwise in the gateway's settings; to be overridden."""
    return {}


@pytest.fixture
def limits() -> dict[str, int] | None:
    """Of the key's tenant; to be overridden."""
    return None


@pytest.fixture
def running(
    engine: Engine, engine_server: LoopbackServer, wanted: dict[str, object], limits: dict[str, int] | None, tmp_path: Path
) -> Iterator[Running]:
    with _gateway_thread(_settings(engine_server.url, wanted), tmp_path) as port:
        with closing(sqlite.connect(sqlite.store_path(tmp_path))) as connection:
            key, _ = sqlite_tenants.create_key(connection, SystemClock(), tenant="anna", project="chatbot", limits=limits)
        made = Running(port, key, tmp_path, engine, engine_server)
        made.wait_until_ready()
        yield made


def _settings(engine_url: str, wanted: dict[str, object]) -> GatewaySettings:
    queue = QueueSettings(places_per_replica=8, patience_s=2, cold_patience_s=2)
    fleets = (StaticFleet(kind="static", urls=(engine_url,)),)
    usual = {"fleets": fleets, "look_s": 0.05, "queue": queue, "admin": {"port": None}}
    return GatewaySettings.model_validate(usual | wanted)


@contextmanager
def engine_thread(engine: Engine) -> Iterator[LoopbackServer]:
    ready, done = threading.Event(), asyncio.Event()
    made: list[tuple[LoopbackServer, asyncio.AbstractEventLoop]] = []

    async def serve() -> None:
        async with loopback(lambda request: engine.act(request)) as server:
            made.append((server, asyncio.get_running_loop()))
            ready.set()
            await done.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(5)
    server, loop = made[0]
    yield server
    loop.call_soon_threadsafe(done.set)
    thread.join()


@contextmanager
def _gateway_thread(settings: GatewaySettings, state_dir: Path) -> Iterator[int]:
    server = gateway_server(settings, state_dir)
    server.config.port = 0
    thread = threading.Thread(target=server.run)
    thread.start()
    until = time.monotonic() + 10
    while not server.started and thread.is_alive() and time.monotonic() < until:
        time.sleep(0.01)
    assert server.started
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:  # a failed test must not keep the whole run from ending
        server.should_exit = True
        thread.join()
