"""Workers of one installation on a real Redis: their grants in this process, or whole gateways in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from gateway.adapters import sqlite, sqlite_tenants
from gateway.adapters.system_clock import SystemClock
from tests.integration.gateway.conftest import MODEL, Engine, engine_thread
from tests.redis_server import RedisServer, redis_server

ROOT = Path(__file__).parents[3]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    with redis_server(folder) as running:
        yield running


@dataclass
class Workers:
    """Gateways of one installation, ready, and one key to all of them."""

    urls: list[str]
    processes: list[subprocess.Popen[bytes]]
    key: str
    state_dir: Path
    engine: Engine = field(default_factory=Engine)

    def kill(self, *numbers: int) -> None:
        for number in numbers:
            self.processes[number].send_signal(signal.SIGKILL)
            self.processes[number].wait()


Start = Callable[..., Workers]


def say(figures: str) -> None:
    """What a run has measured; shown with `pytest -s`."""
    print(figures)  # noqa: T201


@pytest.fixture
def start(server: RedisServer, tmp_path: Path) -> Iterator[Start]:
    """start(count, limits, **limit settings): the workers."""
    with ExitStack() as running:
        engine = Engine()
        engine_url = running.enter_context(engine_thread(engine)).url
        state_dir = tmp_path / "state"

        def begin(count: int, limits: dict[str, int], **settings: object) -> Workers:
            with closing(sqlite.connect(sqlite.store_path(state_dir))) as store:
                key, _ = sqlite_tenants.create_key(store, SystemClock(), tenant="anna", project="chatbot", limits=limits)
            made = [
                running.enter_context(_worker(engine_url, state_dir, {"redis": server.url, **settings})) for _ in range(count)
            ]
            workers = Workers([url for url, _ in made], [process for _, process in made], key, state_dir, engine)
            for url in workers.urls:
                _wait_until_ready(url)
            return workers

        yield begin


@contextmanager
def _worker(engine_url: str, state_dir: Path, limits: dict[str, object]) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = int(taken.getsockname()[1])
    fleets = [{"kind": "static", "urls": [engine_url], "models": [MODEL]}]
    queue = {"places_per_replica": 2000}
    values = {"port": port, "fleets": fleets, "limits": limits, "queue": queue, "admin": {"port": None}, "log_level": "warning"}
    settings = state_dir / f"{port}.json"
    settings.write_text(json.dumps({"state_dir": str(state_dir), "gateway": values}))  # JSON is YAML
    command = [sys.executable, "-m", "daemun", "--config", str(settings), "gateway"]
    process = subprocess.Popen(command, cwd=state_dir, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(url: str) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{url}/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < until, "the gateway does not start"
        time.sleep(0.05)
