"""What rejected callers were told: a virtual queue behind the real one, so that each gets a time of his own, which comes true.

A caller who is turned away gets the time at which his turn would come behind all who wait and all who were told before. Who
comes again at that time has his turn; who comes for the first time stands behind those who were told. A promise that nobody
takes up lapses, and the share of those taken up says how much the others count.
"""

from __future__ import annotations

from heapq import heappop, heappush

from gateway.policy.fair_queue import FairQueue, Line, Promise

_EARLY_S = 0.5
_GRACE_S, _GRACE_SHARE = 2.0, 0.25
_NEWS = 1.0 / 64.0
_LEAST_KEPT = 0.02


class Promises:
    """Of one tier."""

    def __init__(self, queue: FairQueue) -> None:
        self._queue = queue
        self._lapse: list[tuple[float, int]] = []
        self._open: dict[int, Promise] = {}
        self._numbers = 0
        self._waiting = 0
        self._kept_share = 1.0

    @property
    def kept_share(self) -> float:
        """How many of those who are told to come again do."""
        return self._kept_share

    @property
    def waiting(self) -> int:
        """Callers who are to come again."""
        return self._waiting

    def make(self, line: Line, told_s: float, cost: float, now: float) -> None:
        self._numbers += 1
        promise = Promise(line, now + told_s, told_s, cost)
        self._open[self._numbers] = promise
        heappush(self._lapse, (promise.due + max(_GRACE_S, _GRACE_SHARE * told_s), self._numbers))
        self._queue.promise(promise)
        self._waiting += 1

    def take_up(self, line: Line, now: float) -> bool:
        """Whether a caller of this tenant was told to come about now; if so, that promise is kept."""
        if not line.promises or line.promises[0].due - _EARLY_S > now:
            return False
        self._settle(line.promises[0], 1.0)
        return True

    def lapse(self, now: float) -> None:
        while self._lapse and self._lapse[0][0] <= now:
            promise = self._open.pop(heappop(self._lapse)[1])
            if promise.open:
                self._settle(promise, 0.0)

    def _settle(self, promise: Promise, kept: float) -> None:
        self._queue.settle(promise)
        self._waiting -= 1
        self._kept_share = max(_LEAST_KEPT, self._kept_share + (kept - self._kept_share) * _NEWS)
