"""How much of the two cores others use while we measure: figures from a busy machine mean little, and nobody sees it in them."""

from __future__ import annotations

import os
import time

import psutil

from benchmarks.gateway.processes import GATEWAY_CORE, LOAD_CORE


class Watch:
    """From its making on. Time that the host gave to other machines counts as used by others."""

    def __init__(self) -> None:
        self._began, self._busy, self._ours = time.monotonic(), _busy_s(), _ours_s()

    def others_percent(self) -> float:
        """Their share of the two cores so far."""
        theirs = (_busy_s() - self._busy) - (_ours_s() - self._ours)
        return max(0.0, 100 * theirs / (2 * (time.monotonic() - self._began)))


def _busy_s() -> float:
    cores = psutil.cpu_times(percpu=True)
    return sum(core.user + core.nice + core.system + core.steal for core in (cores[GATEWAY_CORE], cores[LOAD_CORE]))


def _ours_s() -> float:
    """This process, all that it has started, and what those have waited for."""
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    alive = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    return own + sum(one.user + one.system + one.children_user + one.children_system for one in alive)
