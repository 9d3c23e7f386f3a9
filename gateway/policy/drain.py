"""How fast calls arrive, start and leave, measured."""

from __future__ import annotations

import math


class Pace:
    """An amount a second over the last seconds: an exponentially forgetting sum over the time it covers."""

    __slots__ = ("_first", "_last", "_memory_s", "_sum")

    _LEAST_WINDOW_S = 1.0

    def __init__(self, memory_s: float) -> None:
        self._memory_s = memory_s
        self._sum = 0.0
        self._first = -1.0
        self._last = 0.0

    def add(self, amount: float, now: float) -> None:
        if self._first < 0.0:
            self._first = self._last = now
        if now > self._last:
            self._sum *= math.exp((self._last - now) / self._memory_s)
            self._last = now
        self._sum += amount

    def per_s(self, now: float) -> float:
        if self._first < 0.0:
            return 0.0
        window_s = max(now - self._first, self._LEAST_WINDOW_S)
        kept = math.exp((self._last - now) / self._memory_s)
        return self._sum * kept / (self._memory_s * (1.0 - math.exp(-window_s / self._memory_s)))


_LOOSE_KEPT = 0.1  # of what was learned before the replicas were full for the first time


class Drain:
    """The rate at which full replicas work calls off, in cost a second.

    What has left lately, over the place-seconds (and token-seconds of KV cache) that were in use meanwhile, times the places
    (tokens) there are. So it is known before the replicas are full, where departures alone would measure the demand, follows the
    fleet's size at once, and does not take the first to leave, which are the short ones, for typical: those that still run have
    used their places too. Engines with less to do are faster: once they have been full, only such times count.

    The first calls say nothing by leaving until they do, all of them late and at once. So as long as few have left, what the
    running ones have done of their cost counts as well (`worked`), and until they have done some, the rate is not known.
    """

    __slots__ = ("_began", "_calls", "_cost", "_count", "_last", "_learns", "_place_s", "_token_s", "_was_full", "is_new")

    _SHORT_S = 10.0
    _LONG_S = 120.0
    _ENOUGH = 48.0  # departures; with fewer, the memory is the long one
    _FIRST_PART = 1.0 / 4.0  # of what runs has to be done before the rate is known: at first the engines mostly read prompts
    _FIRST_S = 10.0  # unless that takes longer

    def __init__(self) -> None:
        self.is_new = True  # few have left yet: what the running ones have done should be told
        self._began = -1.0
        self._calls = 0
        self._cost = 0.0
        self._count = 0.0
        self._place_s = 0.0
        self._token_s = 0.0
        self._last = 0.0
        self._was_full = False
        self._learns = True

    def passed(self, calls: int, tokens: int, is_full: bool, now: float) -> None:
        """So many calls ran since this was called last, with so many tokens; `is_full`: hardly more could have."""
        passed_s = now - self._last
        if passed_s <= 0.0:
            return
        self._last = now
        if is_full and not self._was_full:
            self._was_full = True
            self._forget(_LOOSE_KEPT)
        self._learns = is_full or not self._was_full
        if not self._learns:
            return
        memory_s = self._SHORT_S if self._count >= self._ENOUGH else self._LONG_S
        kept = math.exp(-passed_s / memory_s)
        if not calls:  # nothing to learn from
            return
        self._calls = calls
        if self._began < 0.0:
            self._began = now - passed_s
        covered_s = memory_s * (1.0 - kept)
        self._forget(kept)
        self._place_s += covered_s * calls
        self._token_s += covered_s * tokens

    def worked(self, cost: float) -> None:
        """One that runs has done so much more of its estimated cost."""
        if self._learns:
            self._cost += cost

    def left(self, cost: float) -> None:
        """One of them, whose estimated cost this is, less what it was said to have done."""
        if self._learns:
            self._cost += cost
            self._count += 1.0
            if self._count >= self._ENOUGH:
                self.is_new = False

    def _forget(self, kept: float) -> None:
        self._cost *= kept
        self._count *= kept
        self._place_s *= kept
        self._token_s *= kept

    def per_s(self, places: float, tokens: float, typical: float) -> float:
        """0: not known yet. `tokens`: 0 if they are no limit. `typical`: a call's cost; where none has done any of it for long,
        one is taken to leave now.
        """
        if self._place_s <= 0.0:
            return 0.0
        cost = self._cost
        if self._count < 1.0 and cost < self._FIRST_PART * self._calls * typical:
            if self._last - self._began < self._FIRST_S:
                return 0.0
            cost += typical
        rate = places * cost / self._place_s
        if tokens > 0.0 and self._token_s > 0.0:
            rate = min(rate, tokens * cost / self._token_s)
        return rate
