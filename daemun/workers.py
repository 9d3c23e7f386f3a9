"""Several gateway processes behind one listening socket: `gateway.workers` in the settings.

    daemun gateway ── supervises ──▶ daemun gateway --listener 3     (as often as there are workers)

The socket is bound once and inherited, so that connections which wait in it outlive a worker. A worker that ends by itself is
started again; what it had leased of shared limits comes back by itself. Limits count over all workers, which takes a store that
all of them share: without one, more than one worker is refused.
"""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from daemun.problem import Problem
from gateway.settings import GatewaySettings
from serving.processes import die_with_parent

log = logging.getLogger(__name__)

_LOOK_S = 0.1
_PAUSE_S = 0.5, 30.0  # before a worker that has ended is started again: at first, and when it keeps ending
_LONG_S = 60.0  # one that ran for so long has not kept ending
_LAST_GRACE_S = 10.0  # on top of `shutdown_s`, for the ledger
_BACKLOG = 4096


def listen(settings: GatewaySettings) -> socket.socket:
    """The socket that all workers take connections from. Raises Problem."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except OSError as problem:
        listener.close()
        raise Problem(
            f"The gateway cannot listen on {settings.host}:{settings.port} ({problem.strerror}). Choose another gateway.port."
        ) from problem
    listener.listen(_BACKLOG)
    listener.set_inheritable(True)
    return listener


class Worker:
    """One place for a process: it holds the running one, or the time at which the next may start."""

    def __init__(self, command: Sequence[str], listener: socket.socket) -> None:
        self._command = command
        self._listener = listener
        self._pause_s = _PAUSE_S[0]
        self._began = self._next = 0.0
        self.process: subprocess.Popen[bytes] | None = None

    def look(self, now: float) -> None:
        """Start it where it does not run, and not too often."""
        if self.process is None:
            if now >= self._next:
                self._start(now)
            return
        code = self.process.poll()
        if code is None:
            return
        self.process = None
        self._pause_s = _PAUSE_S[0] if now - self._began > _LONG_S else min(2 * self._pause_s, _PAUSE_S[1])
        self._next = now + self._pause_s
        log.warning("A gateway worker has ended (exit code %d); the next starts in %.1f s.", code, self._pause_s)

    def _start(self, now: float) -> None:
        self._began = now
        # A session of its own: Ctrl-C reaches the supervisor alone, which tells the workers.
        self.process = subprocess.Popen(  # noqa: S603 (our own command)
            self._command, pass_fds=[self._listener.fileno()], start_new_session=True, preexec_fn=die_with_parent
        )


class Workers:
    """All of them, until SIGINT or SIGTERM. A second signal ends them at once."""

    def __init__(self, settings: GatewaySettings, options: Sequence[str], listener: socket.socket) -> None:
        self._patience_s = settings.timeouts.shutdown_s + _LAST_GRACE_S
        command = [sys.executable, "-m", "daemun", *options, "gateway", "--listener", str(listener.fileno())]
        self._workers = [Worker(command, listener) for _ in range(settings.workers)]
        self._until: float | None = None

    def run(self) -> None:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._on_signal)
        while self._until is None:
            for worker in self._workers:
                worker.look(time.monotonic())
            time.sleep(_LOOK_S)
        self._end(self._until)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self._until = time.monotonic() + (self._patience_s if self._until is None else 0.0)

    def _end(self, until: float) -> None:
        running = [worker.process for worker in self._workers if worker.process is not None]
        for process in running:
            process.terminate()
        while any(process.poll() is None for process in running) and time.monotonic() < (self._until or until):
            time.sleep(_LOOK_S)
        for process in running:
            process.kill()
            process.wait()
