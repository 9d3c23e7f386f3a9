"""The same load against the real thing: `daemun up` with its demo model, and its vLLM replica asked directly beside it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.gateway.peers import DAEMUN, DIRECT
from benchmarks.gateway.processes import BenchmarkError, free_port
from benchmarks.overload.http_peers import PATH, Target, exchange, queue_settings

MODEL = "daemun-demo"
SEATS = 64  # as the catalogue has it
_READY, _KEY = "Ctrl-C ends everything", re.compile(r"\bdm-[\w-]{43}")
_START_S, _END_S = 240.0, 60.0
_BUSY = re.compile(r"^vllm:num_requests_(?:running|waiting)\{[^\n]*\} (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class RealEngine:
    """vLLM's own server in its Ray Serve replica."""

    port: int
    prefix: str

    def are_idle(self) -> bool:
        page = exchange(self.port, "GET", f"{self.prefix}/metrics")[1].decode()
        return not any(float(count) for count in _BUSY.findall(page))

    def late_ms(self) -> float:
        """It is as late as it is."""
        return 0.0


@dataclass(frozen=True, slots=True)
class Stack:
    engine: RealEngine
    targets: tuple[Target, ...]


@contextmanager
def stack(folder: Path, tiers: tuple[str, ...]) -> Iterator[Stack]:
    """`daemun up`, ready, on ports and in a state folder of its own. Raises BenchmarkError if it does not come up."""
    temp_root = Path(tempfile.mkdtemp(prefix="dm-", dir="/tmp"))
    port, dashboard, proxy = free_port(), free_port(), free_port()
    environment = os.environ | _variables(folder, temp_root, port, dashboard, proxy)
    log = folder / "daemun-up.log"
    with log.open("wb") as output:
        command = ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", "0,1", sys.executable, "-m", "daemun", "up"]
        process = psutil.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
    try:
        said = _wait(process, log)
        engine = _replica(dashboard, (folder / "state" / "ray-token").read_text().strip())
        key = _KEY.search(said)
        if key is None:
            raise BenchmarkError(f"daemun up has printed no key; what it said is in {log}")
        yield Stack(engine, _targets(engine, port, key[0], tiers, process))
    finally:
        _end(process)
        shutil.rmtree(temp_root, ignore_errors=True)


def _targets(engine: RealEngine, port: int, key: str, tiers: tuple[str, ...], process: psutil.Process) -> tuple[Target, ...]:
    through = Target(DAEMUN, (port,), {tier: [key] for tier in tiers}, process, MODEL, PATH, exact=True)
    direct = Target(DIRECT, (engine.port,), {tier: ["none"] for tier in tiers}, None, MODEL, engine.prefix + PATH, exact=True)
    return through, direct


def _variables(folder: Path, temp_root: Path, port: int, dashboard: int, proxy: int) -> dict[str, str]:
    values = {
        "STATE_DIR": str(folder / "state"),
        "GATEWAY__PORT": str(port),
        "GATEWAY__FLEETS": json.dumps([{"kind": "ray", "url": f"http://127.0.0.1:{dashboard}"}]),
        "GATEWAY__QUEUE": json.dumps(queue_settings(SEATS)),
        "SERVING__DASHBOARD_PORT": str(dashboard),
        "SERVING__PROXY_PORT": str(proxy),
        "SERVING__DRAIN_S": "5",
        "SERVING__TEMP_ROOT": str(temp_root),
    }
    return {f"DAEMUN_{name}": value for name, value in values.items()}


def _wait(process: psutil.Popen, log: Path) -> str:
    """What it has said, once it is ready."""
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        said = log.read_text(errors="replace")
        if _READY in said:
            return said
        if process.poll() is not None:
            break
        time.sleep(0.5)
    raise BenchmarkError(f"daemun up is not ready in {_START_S:.0f} s; what it said is in {log}")


def _replica(dashboard: int, token: str) -> RealEngine:
    """Where Serve says that the one replica listens."""
    address = f"http://127.0.0.1:{dashboard}/api/serve/applications/"
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        groups: list[dict[str, Any]] = json.load(answer)["target_groups"]
    for group in groups:
        for target in group["targets"]:
            if target["name"].startswith("SERVE_REPLICA"):
                return RealEngine(int(target["port"]), str(group["route_prefix"]))
    raise BenchmarkError("Ray Serve lists no replica")


def _end(process: psutil.Popen) -> None:
    """In order if it can, with all that it has started."""
    if process.poll() is not None:
        return
    family = process.children(recursive=True)
    process.terminate()
    try:
        process.wait(_END_S)
    except psutil.TimeoutExpired:
        process.kill()
    _, left = psutil.wait_procs(family, timeout=1)
    for member in left:
        member.kill()
