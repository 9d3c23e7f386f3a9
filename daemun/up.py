"""`daemun up`: the models and the gateway as two child processes, one supervisor in the foreground, and nothing left at the end.

    daemun up ── supervises ──▶ daemun serve    (Ray, Ray Serve, vLLM)
                           └──▶ daemun gateway

Whatever ends first, a part or the supervisor itself, ends the rest: the supervisor inherits orphans (it is a subreaper), and
children are told by the kernel when their parent dies.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

from daemun.settings import Settings
from serving import run_dir
from serving.processes import become_subreaper, die_with_parent, end_descendants

LOOK_S = 0.25
LAST_GRACE_S = 5.0
STOPPED = 128  # plus the signal's number, as shells have it

_GATEWAYS_OWN = "DAEMUN_GATEWAY__"
_DEMAND_URL = "DAEMUN_SERVING__AUTOSCALING__DEMAND_URL"

Say = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Part:
    """One child: its name, its command line after `daemun`, how long it may take to end in order, and what it alone is told."""

    name: str
    arguments: Sequence[str]
    patience_s: float
    variables: Mapping[str, str] = field(default_factory=dict)

    def start(self, say: Say) -> RunningPart:
        # A session of its own: Ctrl-C reaches the supervisor alone, which ends the parts in order.
        process = subprocess.Popen(  # noqa: S603 (our own command)
            [sys.executable, "-m", "daemun", *self.arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            env=self._environment(),
            preexec_fn=die_with_parent,
        )
        threading.Thread(target=self._pass_on, args=(process, say), daemon=True).start()
        return RunningPart(self, process)

    def _environment(self) -> dict[str, str]:
        """What belongs to the gateway, its stores' passwords among it, is not for Ray and what Ray starts."""
        if self.name == "gateway":
            return dict(os.environ)
        others = {name: value for name, value in os.environ.items() if not name.startswith(_GATEWAYS_OWN)}
        return others | dict(self.variables)

    def _pass_on(self, process: subprocess.Popen[str], say: Say) -> None:
        for line in process.stdout or ():
            say(self.name, line.rstrip())


@dataclass(frozen=True, slots=True)
class RunningPart:
    part: Part
    process: subprocess.Popen[str]

    def check(self) -> None:
        """Raises PartEnded."""
        code = self.process.poll()
        if code is not None:
            raise PartEnded(f"{self.part.name} has ended (exit code {code})")

    def end(self) -> None:
        """Ask it to end, and wait for as long as it may take; what is left then is killed with everything else."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(self.part.patience_s)
            except subprocess.TimeoutExpired:
                self.process.kill()


class Stopped(Exception):
    """A signal came."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(signal.Signals(signum).name)


class PartEnded(Exception):
    """A part ended by itself, which it never should."""


class Supervisor:
    """Starts the parts, waits until the gateway is ready, then stays until something ends. `say(part, line)` tells people."""

    def __init__(self, settings: Settings, options: Sequence[str], say: Say) -> None:
        shutdown_s = settings.gateway.timeouts.shutdown_s
        demand_url = settings.demand_url()
        self._ready_url = f"http://{_reachable(settings.gateway.host)}:{settings.gateway.port}/health/ready"
        self._temp_root = settings.serving.temp_root
        self._say = say
        # Started in this order and ended in the other: the gateway lets streams finish while their engines still run.
        self._parts = [
            Part("serve", [*options, "serve"], settings.serving.drain_s + 40.0, {_DEMAND_URL: demand_url} if demand_url else {}),
            Part("gateway", [*options, "gateway"], shutdown_s + 5.0),
        ]
        self._running: list[RunningPart] = []
        self._stopping = False

    def run(self, when_ready: Callable[[], Sequence[str] | None]) -> int:
        """Everything, to the end. `when_ready` may return a command to run; its end is then the end. Returns the exit code."""
        become_subreaper()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, self._on_signal)
        try:
            for part in self._parts:
                self._running.append(part.start(self._say))
            self._wait_until_ready()
            command = when_ready()
            return self._stay() if command is None else self._run(command)
        except Stopped as stopped:
            self._say("up", f"{stopped}: ending everything")
            return STOPPED + stopped.signum
        except PartEnded as ended:
            self._say("up", f"{ended}; ending everything")
            return 1
        finally:
            self._end()

    def _wait_until_ready(self) -> None:
        waiting_for: list[str] = []
        while True:
            self._check_parts()
            ready, now_waiting_for = _ask(self._ready_url)
            if ready:
                return
            if now_waiting_for != waiting_for:
                waiting_for = now_waiting_for
                if waiting_for:
                    self._say("gateway", f"waits for {'; '.join(waiting_for)}")
            time.sleep(LOOK_S)

    def _stay(self) -> int:
        while True:
            self._check_parts()
            time.sleep(LOOK_S)

    def _run(self, command: Sequence[str]) -> int:
        process = subprocess.Popen(command)  # noqa: S603 (what the user asked for)
        while process.poll() is None:
            self._check_parts()
            time.sleep(LOOK_S)
        return process.returncode

    def _check_parts(self) -> None:
        for running in self._running:
            running.check()

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if not self._stopping:
            self._stopping = True
            raise Stopped(signum)
        # The second time people mean it.
        end_descendants(0)
        run_dir.remove_abandoned(self._temp_root)
        os._exit(STOPPED + signum)

    def _end(self) -> None:
        self._stopping = True
        for running in reversed(self._running):
            running.end()
        end_descendants(LAST_GRACE_S)
        run_dir.remove_abandoned(self._temp_root)


def _ask(url: str) -> tuple[bool, list[str]]:
    """Whether the gateway is ready, and what it waits for; nothing at all while it does not answer yet."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 (an http address of ours)
            return True, json.load(response)["waiting_for"]
    except urllib.error.HTTPError as problem:
        with problem:
            return False, json.load(problem).get("waiting_for", [])
    except (OSError, ValueError):
        return False, []


def _reachable(host: str) -> str:
    """The address by which this machine reaches a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 (compared, not bound)
