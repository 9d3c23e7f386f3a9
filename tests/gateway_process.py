"""`daemun gateway` in a process of its own, with its only replica the scripted engine."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai

from gateway.adapters import sqlite, sqlite_ledger, sqlite_tenants
from gateway.adapters.system_clock import SystemClock
from gateway.entry import Entry

ROOT = Path(__file__).parents[1]
_START_S = 30


@dataclass
class GatewayProcess:
    process: subprocess.Popen[str]
    port: int
    key: str
    state_dir: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0)

    def kept(self) -> http.client.HTTPConnection:
        """A connection that has been used and is kept."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", "/health/ready")
        answer = connection.getresponse()
        assert (answer.status, answer.read()[:14]) == (200, b'{"ready":true,')
        return connection

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def ends(self, within_s: float) -> None:
        """Well, and with nothing to say."""
        _, said = self.process.communicate(timeout=within_s)
        assert (self.process.returncode, said) == (0, "")

    def entries(self) -> list[Entry]:
        with closing(sqlite.connect(sqlite.store_path(self.state_dir))) as connection:
            return sqlite_ledger.read_entries(connection, last=100)

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()[1]
        try:
            return httpx.get(f"{self.url}/health/ready").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def gateway_process(engine_url: str, state_dir: Path, **settings: str) -> Iterator[GatewayProcess]:
    """Ready. `settings` are variables without their DAEMUN_GATEWAY__."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = int(taken.getsockname()[1])
    usual = {"PORT": str(port), "LOG_LEVEL": "warning", "FLEETS": json.dumps([{"kind": "static", "urls": [engine_url]}])}
    usual |= {"ADMIN": json.dumps({"port": None})}
    environment = os.environ | {f"DAEMUN_GATEWAY__{name}": value for name, value in (usual | settings).items()}
    environment |= {"PYTHONPATH": str(ROOT), "DAEMUN_STATE_DIR": str(state_dir)}
    with closing(sqlite.connect(sqlite.store_path(state_dir))) as connection:
        key, _ = sqlite_tenants.create_key(connection, SystemClock(), tenant="anna", project="chatbot")
    command = [sys.executable, "-m", "daemun", "gateway"]
    process = subprocess.Popen(command, cwd=state_dir, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        made, until = GatewayProcess(process, port, key, state_dir), time.monotonic() + _START_S
        while not made.is_ready():
            assert time.monotonic() < until, "the gateway does not start"
            time.sleep(0.05)
        yield made
    finally:
        process.kill()
        process.communicate()
