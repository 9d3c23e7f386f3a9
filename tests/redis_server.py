"""A Redis server of a test's own, on a free port, which can be killed, paused and started again with or without its data."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis

_START_S = 10


@dataclass
class RedisServer:
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, decode_responses=True)

    def start(self) -> None:
        """With the data that was saved last, if there is any."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until = time.monotonic() + _START_S
        with self.client() as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.exceptions.ConnectionError:
                    assert time.monotonic() < until, "redis-server does not start"
                    time.sleep(0.02)

    def save(self) -> None:
        with self.client() as client:
            client.save()

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, signum: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(signum)

    def script_calls(self) -> int:
        """How often a script was run since it started."""
        with self.client() as client:
            stats = client.info("commandstats")
        assert isinstance(stats, dict)
        return int(stats.get("cmdstat_evalsha", {}).get("calls", 0))


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """Running."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = int(taken.getsockname()[1])
    server = RedisServer(folder, port)
    server.start()
    try:
        yield server
    finally:
        server.kill()
