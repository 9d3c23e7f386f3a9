"""The foreground body of `daemun serve`: one supervised cluster process, and nothing left when it ends.

The cluster itself lives in `cluster.py`, in a process of its own, because whatever happens to it, something must still be there
to end what it started, to remove its files and to say in one sentence why. This module therefore never imports Ray.
"""

import os
import re
import secrets
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from serving import run_dir as run_dirs
from serving import serve_process
from serving.environment import cluster_environment, token_path
from serving.processes import become_subreaper, end_descendants
from serving.settings import ServingSettings

# Beyond the drain: Serve's own shutdown, Ray's, and the last goodbye of every process.
SHUTDOWN_MARGIN_S = 30.0
LAST_GRACE_S = 3.0
LOG_TAIL_LINES = 20
COMPLAINT = re.compile(r"\b(ERROR|CRITICAL|FATAL)\b|(Error|Exception): ")

Report = Callable[[str], None]
Reread = Callable[[], ServingSettings | str]  # the settings as they are now, or what is wrong with them


def run(settings: ServingSettings, state_dir: Path, report: Report, reread: Reread) -> int:
    """Serve every model until SIGINT or SIGTERM; returns the exit code. `report` gets one line a step.

    At SIGUSR1 the models go over to what `reread` then gives, one replica after the other.

    What would make the start fail and can be seen before it (ports, weights, memory) is the caller's to check. A second signal
    ends everything at once. Must run in the main thread, which is where signals arrive, and as the last thing of its process.
    """
    become_subreaper()
    _ensure_token(settings, state_dir)
    run_dirs.remove_abandoned(settings.temp_root)
    run_dir = run_dirs.make(settings.temp_root)
    try:
        code = _supervise(settings, state_dir, run_dir, report, reread)
        killed = end_descendants(LAST_GRACE_S)
        if killed:
            report(f"ended {len(killed)} processes that did not end by themselves")
        if code != 0:
            for line in _complaints(run_dir):
                report(f"  {line}")
    finally:
        end_descendants(0)
        shutil.rmtree(run_dir, ignore_errors=True)
    report("stopped" if code == 0 else "ended after a failure")
    return code


def _ensure_token(settings: ServingSettings, state_dir: Path) -> None:
    """A token of our own, readable by us alone, so that Ray does not put one into the home directory."""
    state_dir.mkdir(parents=True, exist_ok=True)
    if settings.token_auth and not token_path(state_dir).exists():
        descriptor = os.open(token_path(state_dir), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))


def _supervise(settings: ServingSettings, state_dir: Path, run_dir: Path, report: Report, reread: Reread) -> int:
    """Start the cluster process, pass its lines on, pass signals to it, and wait for its end."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # the cluster inherits this, until it listens itself
    read_end, write_end = os.pipe()
    _write(settings, run_dir)
    with run_dirs.settings_path(run_dir).open("rb") as settings_file, (run_dir / "cluster.log").open("wb") as log:
        cluster = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "serving.cluster", str(write_end)],
            stdin=settings_file,
            stdout=log,
            stderr=log,
            pass_fds=(write_end,),
            env=cluster_environment(settings, state_dir, run_dir, os.environ),
            start_new_session=True,  # Ctrl-C reaches us alone; we tell it in order
        )
    os.close(write_end)
    deadline = [float("inf")]
    reload = threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        patience_s = settings.drain_s + SHUTDOWN_MARGIN_S if deadline[0] == float("inf") else 0.0
        deadline[0] = time.monotonic() + patience_s
        cluster.terminate()

    for signum in (signal.SIGINT, signal.SIGTERM):  # for good: a signal must not cut the tidying up short either
        signal.signal(signum, stop)
    signal.signal(signal.SIGUSR1, lambda signum, frame: reload.set())

    def is_over() -> bool:
        if reload.is_set():
            reload.clear()
            _reload(reread(), run_dir, cluster, report)
        return time.monotonic() > deadline[0]

    with open(read_end, "rb", buffering=0) as reports, serve_process.announced(state_dir):
        for line in _lines_until(reports.fileno(), is_over):
            report(line)
        return _exit_code(cluster, report, stopped=deadline[0] != float("inf"))


def _reload(asked: ServingSettings | str, run_dir: Path, cluster: subprocess.Popen[bytes], report: Report) -> None:
    if isinstance(asked, str):
        report(f"no reload: {asked}")
        return
    _write(asked, run_dir)
    cluster.send_signal(signal.SIGUSR1)


def _write(settings: ServingSettings, run_dir: Path) -> None:
    """At one stroke, for a reader may be under way."""
    path = run_dirs.settings_path(run_dir)
    new = path.with_suffix(".new")
    new.write_text(settings.model_dump_json())
    new.replace(path)


def _lines_until(descriptor: int, give_up: Callable[[], bool]) -> Iterator[str]:
    """Lines from a pipe until its writer is gone or patience is."""
    rest = b""
    while not give_up():
        if not select.select([descriptor], [], [], 0.2)[0]:
            continue
        data = os.read(descriptor, 65536)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from (line.decode() for line in lines)


def _exit_code(cluster: subprocess.Popen[bytes], report: Report, *, stopped: bool) -> int:
    try:
        code = cluster.wait(timeout=LAST_GRACE_S)
    except subprocess.TimeoutExpired:
        cluster.kill()
        cluster.wait()
        report("the cluster did not end in time and was killed")
        return 1
    if code < 0 and not stopped:
        report(f"the cluster process was ended by {signal.Signals(-code).name}")
    return 0 if stopped else abs(code)


def _complaints(run_dir: Path) -> list[str]:
    """The last lines that speak of errors, of the cluster process and of the replicas, for after a failure."""
    logs = [run_dir / "cluster.log", *run_dir.glob("session_2*/logs/worker-*.err"), *run_dir.glob("session_2*/logs/raylet.err")]
    lines = [line for log in logs for line in log.read_text(errors="replace").splitlines() if COMPLAINT.search(line)]
    return lines[-LOG_TAIL_LINES:]
