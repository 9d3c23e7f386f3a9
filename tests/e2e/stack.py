"""A whole daemun for end-to-end tests: `daemun up` as people start it, on ports and in a state folder of its own."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

START_S = 240.0  # two busy cores; it takes a quarter of that on idle ones
END_S = 90.0
MODEL = "daemun-demo"
REPLICA_PORTS = 20
_REPLICA_RANGE = range(20000, 30000)
_next_range = itertools.count(os.getpid())


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses now. Held open together, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(taken.getsockname()[1]) for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports


def free_range(count: int) -> int:
    """The first of `count` ports in a row that no other stack of this run has and nobody listens on."""
    listening = {c.laddr.port for c in psutil.net_connections("tcp") if c.laddr and c.status == psutil.CONN_LISTEN}
    for number in _next_range:
        first = _REPLICA_RANGE[number * count % len(_REPLICA_RANGE)]
        if not listening.intersection(range(first, first + count)):
            return first
    raise AssertionError("the ports are counted without end")


def until(true: Callable[[], bool], within_s: float, what: str | Callable[[], str]) -> float:
    """Wait for it; returns how long that took. `what` may be a function that says how things are once patience is gone."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > within_s:
            raise AssertionError(f"not within {within_s:.0f} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.1)
    return time.monotonic() - began


class Stack:
    """`daemun up` in a folder; its output goes to a file there."""

    def __init__(self, folder: Path, *command: str, **settings: str) -> None:
        gateway, dashboard, proxy = free_ports(3)
        first_replica = free_range(REPLICA_PORTS)
        self.folder = folder
        self.ports = [gateway, dashboard, proxy]
        self.replica_ports = range(first_replica, first_replica + REPLICA_PORTS)
        self.state_dir = folder / "state"
        self.temp_root = Path(tempfile.mkdtemp(prefix="dm-", dir="/tmp"))
        self.url = f"http://127.0.0.1:{gateway}"
        self._out = folder / "out.txt"
        values = {
            "STATE_DIR": str(self.state_dir),
            "GATEWAY__PORT": str(gateway),
            "GATEWAY__FLEETS": json.dumps([{"kind": "ray", "url": f"http://127.0.0.1:{dashboard}"}]),
            "SERVING__DASHBOARD_PORT": str(dashboard),
            "SERVING__PROXY_PORT": str(proxy),
            "SERVING__REPLICA_PORT_MIN": str(first_replica),
            "SERVING__REPLICA_PORT_MAX": str(first_replica + REPLICA_PORTS),
            "SERVING__DRAIN_S": "5",
            "SERVING__TEMP_ROOT": str(self.temp_root),
        } | settings
        self.environment = os.environ | {f"DAEMUN_{name}": value for name, value in values.items()}
        with self._out.open("w") as out:
            self.process = subprocess.Popen(
                [Path(sys.executable).with_name("daemun"), "up", *command],
                stdout=out,
                stderr=out,
                cwd=folder,
                env=self.environment,
            )
        self._seen: dict[int, psutil.Process] = {}

    @property
    def output(self) -> str:
        return self._out.read_text()

    @property
    def key(self) -> str:
        found = re.search(r"dm-[\w-]{43}", self.output)
        assert found, self.output
        return found[0]

    def printed(self, pattern: str) -> str:
        """The part of the output that matches, as a person would copy it."""
        found = re.search(pattern, self.output, re.MULTILINE | re.DOTALL)
        assert found, self.output
        return found[1]

    def wait_until_ready(self, within_s: float = START_S) -> float:
        return self.wait_for("Ctrl-C ends everything", within_s)

    def wait_for(self, text: str, within_s: float) -> float:
        def said() -> bool:
            self.processes()
            assert self.process.poll() is None or text in self.output, self.output
            return text in self.output

        return until(said, within_s, lambda: f"{text!r} in\n{self.output}")

    def processes(self) -> list[psutil.Process]:
        """Every process of this stack that was ever seen and still runs."""
        try:
            main = psutil.Process(self.process.pid)
            self._seen |= {process.pid: process for process in [main, *main.children(recursive=True)]}
        except psutil.NoSuchProcess:
            pass
        return [process for process in self._seen.values() if _runs(process)]

    def find(self, *words: str) -> psutil.Process:
        """The first process of this stack whose command line has all of the words."""
        for process in self.processes():
            if all(word in _command_line(process) for word in words):
                return process
        raise AssertionError(f"no process with {words}")

    def end(self, signum: signal.Signals = signal.SIGINT) -> int:
        self.processes()
        self.process.send_signal(signum)
        return self.process.wait(END_S)

    def left_behind(self) -> list[str]:
        """What should be gone once it has ended: processes, ports, Ray's directories."""
        listening = {c.laddr.port for c in psutil.net_connections("tcp") if c.laddr and c.status == psutil.CONN_LISTEN}
        left = [f"process {process.pid} {_command_line(process)}" for process in self.processes()]
        left += [f"port {port}" for port in (*self.ports, *self.replica_ports) if port in listening]
        return left + [str(path) for path in self.temp_root.iterdir()]

    def entries(self) -> list[dict[str, Any]]:
        """The ledger, oldest first."""
        with closing(sqlite3.connect(self.state_dir / "daemun.sqlite3")) as store:
            store.row_factory = sqlite3.Row
            return [dict(row) for row in store.execute("SELECT * FROM ledger ORDER BY started_at")]

    def entry(self, request_id: str) -> dict[str, Any]:
        """The entry of one call, as soon as it is in the store."""
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found[:] = [entry for entry in self.entries() if entry["id"] == request_id]
            return bool(found)

        until(there, 5, f"a ledger entry for {request_id}")
        return found[0]

    def replica_process(self, replica_id: str) -> psutil.Process:
        """The process that the ledger's replica of that name runs in: the one that listens on its port."""
        port = next(target["port"] for _, target in self._targets() if target["name"] == replica_id)
        listening = [
            c.pid for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == port and c.status == psutil.CONN_LISTEN
        ]
        return psutil.Process(listening[0])

    def replicas(self) -> list[str]:
        """The base addresses of the replicas that Serve lists now."""
        return [f"http://{target['ip']}:{target['port']}{group['route_prefix']}" for group, target in self._targets()]

    def replica_names(self, model: str) -> set[str]:
        """The names of the replicas of one model that Serve lists now; no two replicas ever have the same."""
        return {target["name"] for group, target in self._targets() if group["route_prefix"] == f"/{model}"}

    def _targets(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """What Serve lists, less its own proxies."""
        token = (self.state_dir / "ray-token").read_text().strip()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports[1]}/api/serve/applications/", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            groups = json.load(answer)["target_groups"]
        return [(group, target) for group in groups for target in group["targets"] if target["name"].startswith("SERVE_REPLICA")]


def _command_line(process: psutil.Process) -> str:
    """Empty for one that ends while we look."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def stack(folder: Path, *command: str, **settings: str) -> Iterator[Stack]:
    """A stack that is ended, by force if need be, when the block ends."""
    running = Stack(folder, *command, **settings)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.end(signal.SIGTERM)
        for process in running.processes():
            with suppress(psutil.Error):
                process.kill()
        shutil.rmtree(running.temp_root)
