"""Several gateway processes behind one socket: all serve, one that dies is replaced, and together they end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from tests.gateway_process import GatewayProcess, gateway_process
from tests.integration.gateway.conftest import MODEL
from tests.loopback import LoopbackServer
from tests.redis_server import redis_server


def test_workers_serve_together_are_replaced_and_end_in_order(engine_server: LoopbackServer, tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    with (
        redis_server(folder) as redis,
        gateway_process(engine_server.url, tmp_path, WORKERS="2", LIMITS__REDIS=redis.url) as gateway,
    ):
        until(lambda: len(workers(gateway)) == 2)
        first, second = workers(gateway)
        first.kill()
        for _ in range(20):
            assert said(gateway)
        until(lambda: len(workers(gateway)) == 2 and first not in workers(gateway))
        assert second in workers(gateway)
        assert said(gateway)
        left = workers(gateway)
        gateway.stop()
        gateway.process.wait(timeout=30)
        assert gateway.process.returncode == 0
        assert not [worker for worker in left if worker.is_running()]


def workers(gateway: GatewayProcess) -> list[psutil.Process]:
    """Those that run; a worker's own children are not among them."""
    children = psutil.Process(gateway.process.pid).children()
    return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]


def said(gateway: GatewayProcess) -> str:
    """By a connection of its own; one that waited in a dead worker is not tried again."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "안녕"}]}
    headers = {"authorization": f"Bearer {gateway.key}"}
    answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=10).raise_for_status()
    return str(answer.json()["choices"][0]["message"]["content"])


def until(holds: Callable[[], bool], within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > end:
            pytest.fail("not in time")
        time.sleep(0.05)
