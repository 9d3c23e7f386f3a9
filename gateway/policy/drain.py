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


class Drain:
    """The rate at which full replicas work calls off, in cost a second.

    It is the cost that one place (one token of KV cache) works off in a second, times the places (tokens) there are. So it is
    known before the replicas are full, where counting departures would measure the demand instead, and it follows the fleet's
    size at once. Where they are full, both are the same by Little's law.
    """

    __slots__ = ("_cost", "_last", "_place_s", "_token_s")

    _MEMORY_S = 10.0
    _LEAST_KEPT = 1.0 - 1.0 / 32.0  # however seldom calls leave, as many count

    def __init__(self) -> None:
        self._cost = 0.0
        self._place_s = 0.0
        self._token_s = 0.0
        self._last = 0.0

    def left(self, cost: float, tokens: int, lasted_s: float, now: float) -> None:
        """A call of this estimated cost has held a place and so many tokens for so long."""
        kept = max(math.exp(min(0.0, self._last - now) / self._MEMORY_S), self._LEAST_KEPT)
        self._last = now
        self._cost = self._cost * kept + cost
        self._place_s = self._place_s * kept + lasted_s
        self._token_s = self._token_s * kept + lasted_s * tokens

    def per_s(self, places: float, tokens: float) -> float:
        """0: not known yet. `tokens`: 0 if they are no limit."""
        if self._place_s <= 0.0 or self._cost <= 0.0:
            return 0.0
        rate = places * self._cost / self._place_s
        if tokens > 0.0 and self._token_s > 0.0:
            rate = min(rate, tokens * self._cost / self._token_s)
        return rate
