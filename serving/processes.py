"""Ending the processes we started, and only those: by id, never by name.

An engine starts processes that start processes. When one in the middle dies, its children belong to nobody and keep their memory.
Linux has two answers, both used here: a *subreaper* inherits every orphan below it, so that a supervisor can still find and end
them; and a process may ask the kernel for a signal when its parent dies, so that it never outlives a parent that was killed.

Not here: knowledge of what the processes are. No Ray, no vLLM.
"""

import ctypes
import os
import signal
import socket
import time
from contextlib import suppress

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """From now on orphans below this process become its children instead of init's. Raises OSError where the kernel refuses."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(signum: signal.Signals = signal.SIGTERM) -> None:
    """Ask for `signum` when the parent dies. To be called at the child's start (or as `preexec_fn`); it is not inherited.

    The kernel means the parent's *thread*: a child started from a short-lived thread is signalled when that thread ends.
    """
    _prctl(_PR_SET_PDEATHSIG, signum)


def descendants(pid: int | None = None) -> list[psutil.Process]:
    """Every living process below `pid` (ourselves if not given), children first."""
    try:
        return [process for process in psutil.Process(pid).children(recursive=True) if is_alive(process)]
    except psutil.NoSuchProcess:
        return []


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs: neither gone nor a zombie."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def end_descendants(grace_s: float) -> list[int]:
    """SIGTERM all descendants, SIGKILL what is left after `grace_s`, and reap them. Returns the ids that had to be killed.

    New processes may appear while old ones end (orphans come to us one after the other), so it repeats until the kernel says
    that there is no child any more: every descendant of a subreaper is below one.
    """
    deadline = time.monotonic() + grace_s
    asked: set[int] = set()
    killed: list[int] = []
    while _reap():
        remaining = descendants()
        patience_s = max(0.0, deadline - time.monotonic())
        for process in remaining:
            if patience_s == 0.0:
                killed.append(process.pid)
                _signal(process, signal.SIGKILL)
            elif process.pid not in asked:
                asked.add(process.pid)
                _signal(process, signal.SIGTERM)
        psutil.wait_procs(remaining, timeout=min(patience_s, 0.2) or 0.2)
    return killed


def port_in_use(host: str, port: int) -> bool:
    """Whether a server on `host` could not bind `port` now, because somebody already listens there."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # A port that only lingers in TIME_WAIT is free for a server.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def _signal(process: psutil.Process, signum: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):  # it ended by itself in the meantime, which is what was wanted
        process.send_signal(signum)


def _reap() -> bool:
    """Collect children that have ended: a subreaper gets orphans that nobody else will wait for. Whether any child is left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _prctl(option: int, argument: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, argument, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
