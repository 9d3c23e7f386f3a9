"""Where the time goes from `daemun serve` to the first token: real starts of the demo model, one after the other, by part.

`python -m benchmarks.cold_start --rounds 5`, on an otherwise idle machine. Medians with the least and the most. Variables of the
environment go through to Ray and vLLM, so that a setting can be tried: `RAY_… python -m benchmarks.cold_start`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.table import table

MODEL = "daemun-demo"
PATIENCE_S = 240.0
MOMENTS = {"Ray: ready": "ray", f"{MODEL}: starting": "serve"}
BODY = {"model": MODEL, "prompt": "대문이 뭐예요?", "max_tokens": 8, "stream": True}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kept", action="store_true", help="with vLLM's caches of a start before, which is not counted")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as kept:
        states = (Path(kept) / ("state" if asked.kept else str(number)) for number in range(asked.rounds + asked.kept))
        rounds = [measure(state) for state in states][asked.kept :]
    rows = []
    for name in rounds[0]:
        seconds = [parts[name] for parts in rounds]
        rows.append([name, f"{statistics.median(seconds):.2f}", f"{min(seconds):.2f}", f"{max(seconds):.2f}"])
    sys.stdout.write(table(["seconds", "median", "least", "most"], rows) + "\n")
    return 0


def measure(state: Path) -> dict[str, float]:
    """One start, from nothing to nothing: seconds by part. `state` becomes its state_dir."""
    with tempfile.TemporaryDirectory(prefix="cs-", dir="/tmp") as folder:
        dashboard, proxy, first = _free_ports()
        settings = {
            "STATE_DIR": str(state),
            "SERVING__DASHBOARD_PORT": str(dashboard),
            "SERVING__PROXY_PORT": str(proxy),
            "SERVING__REPLICA_PORT_MIN": str(first),
            "SERVING__REPLICA_PORT_MAX": str(first + 20),
            "SERVING__TEMP_ROOT": folder,
        }
        began = time.time()
        serve = subprocess.Popen(
            [sys.executable, "-m", "daemun", "serve"],
            cwd=folder,
            env=os.environ | {f"DAEMUN_{name}": value for name, value in settings.items()},
            stdout=subprocess.PIPE,
            text=True,
        )
        moments: dict[str, float] = {}
        threading.Thread(target=_read, args=(serve, moments), daemon=True).start()
        try:
            address, listed = _wait_for_replica(serve, dashboard, state / "ray-token")
            first_s, second_s = _first_token_s(address), _first_token_s(address)
            parts = {part["name"]: part for part in _written(Path(folder))}
        finally:
            serve.send_signal(signal.SIGINT)
            serve.wait()
    inner = {f"  of which {name}": _length(parts[name]) for name in ("model", "cache", "warm-up")}
    return {
        "command and Ray": moments["ray"] - began,
        "Ray Serve": moments["serve"] - moments["ray"],
        "a worker for the replica": parts["imports"]["began"] - moments["serve"],
        "imports": _length(parts["imports"]),
        "engine": _length(parts["engine"]),
        **inner,
        "server": _length(parts["server"]),
        "until it is listed": listed - parts["server"]["ended"],
        "the whole": listed - began,
        "first token after that": first_s,
        "first token of a second call": second_s,
    }


def _read(serve: subprocess.Popen[str], moments: dict[str, float]) -> None:
    for line in serve.stdout or ():
        for text, name in MOMENTS.items():
            if line.startswith(text):
                moments[name] = time.time()


def _wait_for_replica(serve: subprocess.Popen[str], dashboard: int, token: Path) -> tuple[str, float]:
    """The replica's address once Serve lists it, and when that was."""
    until = time.time() + PATIENCE_S
    while time.time() < until and serve.poll() is None:
        for group in _listed(dashboard, token):
            for target in group["targets"]:
                if target["name"].startswith("SERVE_REPLICA"):
                    return f"http://{target['ip']}:{target['port']}{group['route_prefix']}", time.time()
        time.sleep(0.05)
    raise SystemExit("daemun serve did not come up")


def _listed(dashboard: int, token: Path) -> list[dict[str, Any]]:
    try:
        headers = {"Authorization": f"Bearer {token.read_text().strip()}"}
        request = urllib.request.Request(f"http://127.0.0.1:{dashboard}/api/serve/applications/", headers=headers)
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            groups: list[dict[str, Any]] = json.load(answer)["target_groups"]
            return groups
    except (OSError, ValueError):
        return []


def _written(folder: Path) -> Iterator[dict[str, Any]]:
    for path in folder.glob("daemun-*/starts/*.jsonl"):
        yield from map(json.loads, path.read_text().splitlines())


def _length(part: dict[str, Any]) -> float:
    return float(part["ended"] - part["began"])


def _first_token_s(address: str) -> float:
    request = urllib.request.Request(  # noqa: S310
        f"{address}/v1/completions", json.dumps(BODY).encode(), {"content-type": "application/json"}
    )
    began = time.time()
    with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
        answer.readline()
        return time.time() - began


def _free_ports() -> tuple[int, int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        return one.getsockname()[1], two.getsockname()[1], 20000 + os.getpid() % 400 * 20


if __name__ == "__main__":
    sys.exit(main())
