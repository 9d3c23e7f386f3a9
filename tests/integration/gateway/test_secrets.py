"""No key, token or password ever gets into what a gateway writes: its output, its journal, its database, its files."""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from gateway.adapters import sqlite
from gateway.adapters.admin_token import token_path
from tests.integration.gateway.conftest import MODEL
from tests.loopback import LoopbackServer
from tests.postgres_server import PASSWORD, PostgresServer

ROOT = Path(__file__).parents[3]
WRONG = "dm-" + "W" * 43


@dataclass
class Loud:
    """A gateway that logs all it can, into a file."""

    port: int
    admin_port: int
    state_dir: Path
    output: Path
    process: subprocess.Popen[bytes]

    def call(self, path: str = "/v1/chat/completions", **headers: str) -> httpx.Response:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "안녕?"}]}
        return httpx.post(f"http://127.0.0.1:{self.port}{path}", json=body, headers=headers, timeout=60)

    def command_lines(self) -> str:
        itself = psutil.Process(self.process.pid)
        return "\n".join(" ".join(one.cmdline()) for one in (itself, *itself.children(recursive=True)))


@contextmanager
def loud_gateway(engine_url: str, folder: Path, store: dict[str, str]) -> Iterator[Loud]:
    port, admin_port = free_port(), free_port()
    fleets = json.dumps([{"kind": "static", "urls": [engine_url]}])
    settings = {"PORT": str(port), "ADMIN__PORT": str(admin_port), "LOG_LEVEL": "debug", "FLEETS": fleets} | store
    environment = os.environ | {f"DAEMUN_GATEWAY__{name}": value for name, value in settings.items()}
    environment |= {"PYTHONPATH": str(ROOT), "DAEMUN_STATE_DIR": str(folder / "state"), "PYTHONASYNCIODEBUG": "1"}
    with (folder / "output").open("wb") as output:
        command = [sys.executable, "-X", "dev", "-m", "daemun", "gateway"]
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
    made = Loud(port, admin_port, folder / "state", folder / "output", process)
    try:
        until = time.monotonic() + 60
        while not is_ready(port):
            assert process.poll() is None, made.output.read_text()
            assert time.monotonic() < until, made.output.read_text()
            time.sleep(0.1)
        yield made
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return int(taken.getsockname()[1])


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_no_secret_is_ever_written(
    kind: str, request: pytest.FixtureRequest, engine_server: LoopbackServer, tmp_path: Path
) -> None:
    server: PostgresServer | None = request.getfixturevalue("postgres") if kind == "postgres" else None
    url = None if server is None else server.new_database()
    with loud_gateway(engine_server.url, tmp_path, {} if url is None else {"STORE__URL": url}) as gateway:
        token = token_path(gateway.state_dir).read_text().strip()
        with httpx.Client(base_url=f"http://127.0.0.1:{gateway.admin_port}/admin/v1", timeout=60) as admin:
            admin.headers["authorization"] = f"Bearer {token}"
            assert admin.post("/tenants", json={"name": "school"}).status_code == 201
            assert admin.post("/tenants/school/projects", json={"name": "homework"}).status_code == 201
            created = admin.post("/keys", json={"tenant": "school", "project": "homework"}).json()
            key = created["key"]
            assert gateway.call(authorization=f"Bearer {key}").status_code == 200
            assert gateway.call(**{"x-api-key": key}).status_code == 200
            assert gateway.call(authorization=f"Bearer {WRONG}").status_code == 401
            assert gateway.call(**{"api-key": key}).status_code == 401
            assert gateway.call(authorization=f"Basic {key}").status_code == 401
            assert gateway.call(f"/v1/chat/completions?key={key}").status_code == 401
            assert gateway.call(f"/v1/{key}", authorization=f"Bearer {key}").status_code == 404
            assert gateway.call(authorization=f"Bearer {token}").status_code == 401
            assert httpx.get(f"{admin.base_url}tenants", headers={"authorization": f"Bearer {key}"}).status_code == 401
            assert admin.get("/tenants", params={"token": token, "key": key}).status_code == 200
            assert admin.post("/keys", json={"tenant": "school", "project": key}).status_code == 404
            assert admin.post("/keys", content=f'{{"tenant": "{key}').status_code == 400
            break_key(created["id"], server, url, gateway.state_dir)
            time.sleep(1.1)  # until it is asked for again
            assert gateway.call(authorization=f"Bearer {key}").status_code == 500
            assert admin.get("/keys").status_code == 500
        lines = gateway.command_lines()
        time.sleep(1)  # for the ledger's mover
    output = gateway.output.read_text()
    assert output.count("Traceback") >= 2, "it crashed, and said where"
    assert "The admin API listens" in output
    dump = "" if server is None or url is None else server.dump(url)
    assert wrote_entries(gateway.state_dir) or "/v1/chat/completions" in dump, "there is something to search"
    secrets = {"key": key.removeprefix("dm-"), "wrong key": WRONG, "token": token, "password": PASSWORD}
    for name, secret in secrets.items():
        assert secret not in output, name
        assert secret not in lines, name
        assert secret not in dump, name
        for path in files(gateway.state_dir):
            if (name, path) != ("token", token_path(gateway.state_dir)):
                assert secret.encode() not in path.read_bytes(), (name, path)


def break_key(key_id: str, server: PostgresServer | None, url: str | None, state_dir: Path) -> None:
    """What reads it fails in a way that nobody foresaw."""
    assert re.fullmatch(r"key_[0-9a-f]+", key_id)
    statement = f"UPDATE keys SET models = '{{' WHERE id = '{key_id}'"  # noqa: S608
    if server is not None and url is not None:
        server.sql(statement, url.rpartition("/")[2])
        return
    with closing(sqlite3.connect(sqlite.store_path(state_dir))) as connection, connection:
        connection.execute(statement)


def wrote_entries(state_dir: Path) -> bool:
    return any(b"/v1/chat/completions" in path.read_bytes() for path in files(state_dir))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
