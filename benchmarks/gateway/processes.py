"""Processes that are measured or that measure, each on a core of its own choice and gone when its block ends or we do."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

GATEWAY_CORE = 0
LOAD_CORE = 1
_PATIENCE_S = 10.0


class BenchmarkError(Exception):
    """The benchmark cannot go on; the message is one sentence."""


def pinned(core: int, command: Sequence[str]) -> list[str]:
    """The command on one core only, killed if we are."""
    return ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", str(core), *command]


@contextmanager
def running(
    command: Sequence[str], *, core: int, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[psutil.Popen]:
    """The command's process; what it says goes into `log`. It is ended with the block, its children too."""
    with log.open("wb") as output:
        process = psutil.Popen(
            pinned(core, command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(environment or {})},
        )
    try:
        yield process
    finally:
        _end(process)


def answer_of(command: Sequence[str], *, core: int, timeout_s: float) -> str:
    """What the command prints. Raises BenchmarkError if it fails or takes longer."""
    try:
        done = subprocess.run(  # noqa: S603 (our own command)
            pinned(core, command), capture_output=True, text=True, timeout=timeout_s, check=True
        )
    except subprocess.TimeoutExpired as problem:
        raise BenchmarkError(f"`{' '.join(command[:4])} …` has not ended after {timeout_s:.0f} s") from problem
    except subprocess.CalledProcessError as problem:
        raise BenchmarkError(f"`{' '.join(command[:4])} …` failed: {problem.stderr[-500:].strip()}") from problem
    return done.stdout


def processor_s(process: psutil.Process) -> float:
    """Processor time that it and its children have used: user and system, in seconds."""
    family = [process, *process.children(recursive=True)]
    return sum(times.user + times.system for times in (member.cpu_times() for member in family))


def memory_bytes(process: psutil.Process) -> int:
    """Resident memory of it and its children."""
    return sum(member.memory_info().rss for member in (process, *process.children(recursive=True)))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _end(process: psutil.Popen) -> None:
    if not process.is_running():
        return
    family = [*process.children(recursive=True), process]
    process.terminate()
    _, left = psutil.wait_procs(family, timeout=_PATIENCE_S)
    for member in left:
        member.kill()
    psutil.wait_procs(left, timeout=_PATIENCE_S)
