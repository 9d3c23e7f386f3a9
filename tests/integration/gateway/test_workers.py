"""Several gateway processes behind one socket: all serve, one that dies is replaced, any says what is asked of all, and together
they end.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.fakes import Script
from tests.gateway_process import GatewayProcess, gateway_process
from tests.integration.gateway.conftest import MODEL, Engine
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


def test_any_worker_says_what_is_asked_of_all(engine: Engine, engine_server: LoopbackServer, tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    engine.script = Script(head="hangs")
    with (
        redis_server(folder) as redis,
        gateway_process(engine_server.url, tmp_path, WORKERS="2", LIMITS__REDIS=redis.url) as gateway,
        ExitStack() as calls,
    ):
        until(lambda: [MODEL in told["models"] for told in tellings(gateway)] == [True, True])
        count = 0
        while count < 60 and not all(running(telling) for telling in tellings(gateway)):
            for _ in range(6):
                calls.callback(call_that_runs(gateway).close)
            count += 6
            until(lambda: sum(running(telling) for telling in tellings(gateway)) == count)  # noqa: B023
        shares = [running(telling) for telling in tellings(gateway)]
        assert min(shares) > 0
        assert sum(shares) == count
        for _ in range(10):  # by connections of their own, so that both answer
            shown = demand(gateway)
            assert shown["workers"]["count"] == 2
            assert 0 <= shown["workers"]["oldest_s"] < 3
            asked = shown["models"][MODEL]
            assert (asked["tiers"]["paid"]["running"], asked["calls"]["at_once"]) == (count, count)
            assert asked["replicas"] == {"ready": 1, "starting": 0}
        killed, _ = workers(gateway)
        (killed_running,) = [running(told) for name, told in by_name(gateway) if name.startswith(f"{killed.pid}-")]
        killed.kill()
        until(lambda: demand(gateway)["models"][MODEL]["tiers"]["paid"]["running"] == count - killed_running, 10)
        until(lambda: demand(gateway)["workers"]["count"] == 2)


def call_that_runs(gateway: GatewayProcess) -> socket.socket:
    body = json.dumps({"model": MODEL, "messages": []})
    connection = socket.create_connection(("127.0.0.1", gateway.port))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.key}\r\nContent-Length: {len(body)}"
    connection.sendall(f"{head}\r\n\r\n{body}".encode())
    return connection


def demand(gateway: GatewayProcess) -> dict[str, Any]:
    shown: dict[str, Any] = httpx.get(f"{gateway.url}/internal/demand").raise_for_status().json()
    return shown


def by_name(gateway: GatewayProcess) -> list[tuple[str, dict[str, Any]]]:
    """What each worker has told last."""
    return [(path.name, json.loads(path.read_text())) for path in (gateway.state_dir / "demand").glob("*.json")]


def tellings(gateway: GatewayProcess) -> list[dict[str, Any]]:
    return [telling for _, telling in by_name(gateway)]


def running(telling: dict[str, Any]) -> int:
    return int(telling["models"][MODEL]["demand"]["tiers"]["paid"]["running"])


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
