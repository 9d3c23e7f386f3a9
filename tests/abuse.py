"""Ten thousand half requests against a real gateway, while a good client measures: `python -m tests.abuse`.

Not part of the tests: it takes a minute and 20,000 descriptors. Attacker, gateway and engine with the good client are three
processes. Every connection of the attack that ends is opened again at once.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from tests.gateway_process import ROOT, GatewayProcess, gateway_process
from tests.integration.gateway.conftest import MODEL, Engine, engine_thread

COUNT = 10_000
ATTACK_S = 40
ATTACKS = {
    "nothing": b"",
    "half heads": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n",
    "no key, half bodies": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{",
}


async def attack(port: int, sent: bytes) -> None:
    begun = 0

    async def one() -> None:
        nonlocal begun
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                begun += 1
                writer.write(sent)
                while await reader.read(4096):
                    pass
                writer.close()

    tasks = [asyncio.create_task(one()) for _ in range(COUNT)]
    await asyncio.sleep(ATTACK_S)
    print(f"  attacker: {begun:,} connections begun, at most {COUNT:,} at once")  # noqa: T201
    for task in tasks:
        task.cancel()


def measure(gateway: GatewayProcess, seconds: float, label: str) -> None:
    """Good calls one after the other, over a kept connection and over new ones in turn."""
    process = psutil.Process(gateway.process.pid)
    cpu_s, began = sum(process.cpu_times()[:2]), time.monotonic()
    kept, took_ms, failed = HTTPConnection("127.0.0.1", gateway.port, timeout=30), list[float](), 0
    while time.monotonic() - began < seconds:
        at = time.monotonic()
        try:
            failed += not call(gateway, HTTPConnection("127.0.0.1", gateway.port, timeout=30) if len(took_ms) % 2 else kept)
        except (OSError, HTTPException):
            failed += 1
            kept.close()
        took_ms.append(1000 * (time.monotonic() - at))
        time.sleep(0.005)
    busy = (sum(process.cpu_times()[:2]) - cpu_s) / (time.monotonic() - began)
    kept.close()
    took_ms.sort()
    p50, p99 = (took_ms[len(took_ms) * percent // 100] for percent in (50, 99))
    print(  # noqa: T201
        f"  {label:<6} {len(took_ms):>4} calls, {failed} failed; p50 {p50:.1f} ms, p99 {p99:.1f} ms,",
        f"longest {took_ms[-1]:.0f} ms;",
        f"{process.num_fds():,} descriptors, {process.memory_info().rss >> 20} MiB, {busy:.0%} of a core",
    )


def call(gateway: GatewayProcess, connection: HTTPConnection) -> bool:
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "안녕?"}]})
    connection.request("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {gateway.key}"})
    answer = connection.getresponse()
    return answer.status == 200 and b"choices" in answer.read()


@contextmanager
def attacker(gateway: GatewayProcess, name: str) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-m", "tests.abuse", str(gateway.port), name], cwd=ROOT)
    try:
        yield
        process.wait()
    finally:
        process.kill()


def main() -> None:
    with TemporaryDirectory() as folder, engine_thread(Engine()) as engine, gateway_process(engine.url, Path(folder)) as gateway:
        measure(gateway, 5, "before")
        for name in ATTACKS:
            print(f"{COUNT:,} × {name}")  # noqa: T201
            with attacker(gateway, name):
                measure(gateway, ATTACK_S, "during")
            time.sleep(1)
            measure(gateway, 3, "after")
        gateway.stop()
        gateway.ends(10)


if __name__ == "__main__":
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if len(sys.argv) == 3:
        asyncio.run(attack(int(sys.argv[1]), ATTACKS[sys.argv[2]]))
    else:
        main()
