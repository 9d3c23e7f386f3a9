"""What rejected callers were told: a virtual queue behind the real one, so that each gets a time of his own, which comes true.

A caller who is turned away gets the time at which his turn would come behind all who wait and all who were told before. Who
comes again at that time has his turn; who comes for the first time stands behind those who were told. A promise that nobody
takes up lapses, and the share of those taken up says how much the others count.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush

from gateway.policy.fair_queue import FairQueue, Line, Promise

_EARLY_S = 0.5
BOOKED = 0.95  # of what drains; the rest makes good for estimates
MOST_S, _SECONDS = 600, 1024
_GRACE_S, _GRACE_SHARE = 2.0, 0.25
_NEWS = 1.0 / 64.0
_LEAST_KEPT = 0.02
_RISEN = 1.1


class Promises:
    """Of one tier."""

    def __init__(self, queue: FairQueue) -> None:
        self._queue = queue
        self._lapse: list[tuple[float, int]] = []
        self._open: dict[int, Promise] = {}
        self._numbers = 0
        self._waiting = 0
        self._kept_share = 1.0
        self._booked = [0.0] * _SECONDS  # cost promised to start in each second from now on
        self._second = 0
        self._most = 0.0  # cost a second, when a time was looked for last
        self._full_from = self._full_until = -math.inf
        self._full_at_rate = 0.0

    @property
    def waiting(self) -> int:
        """Callers who are to come again."""
        return self._waiting

    @property
    def kept_share(self) -> float:
        """How many of those who are told to come again do."""
        return self._kept_share

    def made_to(self, line: Line, caller: str) -> Promise | None:
        return line.callers.get(caller) if caller else None

    def free_s(self, earliest_s: float, cost: float, rate: float, now: float) -> int:
        """In how many whole seconds, at least so many, there is time for another call of this cost where `rate` drains. What was
        promised when the rate was taken for less, leaves gaps, and they are filled first.
        """
        most = self._most = rate * BOOKED / self._kept_share
        room = cost if cost <= most else most / 2.0  # a call that takes longer than a second goes on in the next ones
        first = max(1, math.ceil(earliest_s))
        # All is promised up to where the last search from as early on ended, unless the rate has risen since.
        goes_on = most <= self._full_at_rate * _RISEN and self._full_from <= now + first <= self._full_until
        for told_s in range(max(first, int(self._full_until - now)) if goes_on else first, MOST_S):
            booked = self._booked[int(now + told_s) % _SECONDS]
            if booked + room <= most:
                if goes_on:
                    self._full_until = now + told_s
                else:
                    self._full_from, self._full_until, self._full_at_rate = now + first, now + told_s, most
                return told_s
        return MOST_S

    def make(self, line: Line, caller: str, told_s: float, cost: float, now: float) -> None:
        self._numbers += 1
        promise = Promise(line, caller, now + told_s, told_s, cost)
        self._open[self._numbers] = promise
        heappush(self._lapse, (promise.due + max(_GRACE_S, _GRACE_SHARE * told_s), self._numbers))
        self._book(int(promise.due), cost)
        self._queue.promise(promise)
        self._waiting += 1

    def _book(self, second: int, cost: float) -> None:
        """From that second on, as much in each as drains in it: where calls are longer than that, the next have to wait."""
        at = second
        while cost > 0.0 < self._most and at < self._second + MOST_S:
            part = min(cost, max(0.0, self._most - self._booked[at % _SECONDS]))
            self._booked[at % _SECONDS] += part
            cost -= part
            at += 1
        self._booked[second % _SECONDS] += cost

    def take_up(self, line: Line, caller: str, now: float) -> bool:
        """Whether this caller was told to come about now; if so, that promise is kept. One who is not known may be any of those
        who are not either.
        """
        if not line.promises:
            return False
        promise = line.callers.get(caller) if caller else line.promises[0]
        if promise is None or promise.due - _EARLY_S > now:
            return False
        self.settle(promise, 1.0)
        return True

    def lapse(self, now: float) -> None:
        second = int(now)
        for passed in range(max(self._second, second - _SECONDS), second):
            self._booked[passed % _SECONDS] = 0.0
        self._second = second
        while self._lapse and self._lapse[0][0] <= now:
            promise = self._open.pop(heappop(self._lapse)[1])
            if promise.open:
                self.settle(promise, 0.0)

    def settle(self, promise: Promise, kept: float) -> None:
        self._queue.settle(promise)
        self._waiting -= 1
        self._kept_share = max(_LEAST_KEPT, self._kept_share + (kept - self._kept_share) * _NEWS)
