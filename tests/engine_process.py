"""`python -m loadtests.engine_sim` in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.gateway_process import ROOT

MODEL = "simulated"
_START_S = 30


@dataclass
class EngineProcess:
    url: str

    def state(self) -> dict[str, Any]:
        answer: dict[str, Any] = httpx.get(f"{self.url}/simulation").json()
        return answer


@contextmanager
def engine_process(port: int, *options: str) -> Iterator[EngineProcess]:
    """Ready."""
    command = [sys.executable, "-m", "loadtests.engine_sim", "--port", str(port), "--model", MODEL, *options]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        made, until = EngineProcess(f"http://127.0.0.1:{port}"), time.monotonic() + _START_S
        while not _is_ready(made):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < until, "the simulated engine does not start"
            time.sleep(0.05)
        yield made
    finally:
        process.kill()
        process.communicate()


def _is_ready(made: EngineProcess) -> bool:
    try:
        return httpx.get(f"{made.url}/health").status_code == 200
    except httpx.TransportError:
        return False
