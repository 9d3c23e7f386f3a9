"""May this call start now, wait, or go away? One queue a model, first come first served, bounded in length and in patience.

The facts come in with the time; nothing here waits. `gateway.adapters.asyncio_gate` does the waiting.

States of a ticket: *running* (has a place), *waiting*, or gone. Rejected: turned away before the queue. Evicted: out of it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from typing import NewType

Ticket = NewType("Ticket", int)

_LEAST_RETRY_S, _MOST_RETRY_S = 1.0, 600.0


class Decision(Enum):
    START = "start"
    WAIT = "wait"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class Patience:
    """Bounds of one queue: how many may wait, and how long while we are busy or while there is no replica yet."""

    most_waiting: int
    busy_s: float
    cold_s: float


class DrainRate:
    """Calls a second that leave their place: an exponentially forgetting count over the time it covers.

    `memory_s` is the time constant of forgetting. The first call opens the window and is not counted in it.
    """

    _LEAST_WINDOW_S = 1.0

    def __init__(self, memory_s: float = 30.0) -> None:
        self._memory_s = memory_s
        self._count = 0.0
        self._first: float | None = None
        self._last = 0.0

    def left(self, now: float) -> None:
        if self._first is None:
            self._first = self._last = now
            return
        self._count = self._count * self._kept(now - self._last) + 1.0
        self._last = now

    def per_s(self, now: float) -> float | None:
        """None until two calls have left; falls while nothing leaves."""
        if self._first is None or not self._count:
            return None
        window_s = max(now - self._first, self._LEAST_WINDOW_S)
        return self._count * self._kept(now - self._last) / (self._memory_s * (1.0 - self._kept(window_s)))

    def _kept(self, passed_s: float) -> float:
        return math.exp(-passed_s / self._memory_s)


class Queue:
    """One model's running and waiting calls.

    Invariants: running never grows while it is at or above `places`; nobody waits while a place is free; those who start from
    the queue start in the order in which they came.
    """

    def __init__(self, patience: Patience, places: int = 0) -> None:
        self._patience = patience
        self._places = places
        self._running: set[Ticket] = set()
        self._waiting: OrderedDict[Ticket, float] = OrderedDict()
        self._drain = DrainRate()

    @property
    def places(self) -> int:
        return self._places

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def arrive(self, ticket: Ticket, now: float) -> Decision:
        if len(self._running) < self._places:
            self._running.add(ticket)
            return Decision.START
        if len(self._waiting) >= self._patience.most_waiting:
            return Decision.REJECT
        self._waiting[ticket] = now
        return Decision.WAIT

    def leave(self, ticket: Ticket, now: float) -> list[Ticket]:
        """The call is over, or its client is gone while it waited. Returns the tickets that start now."""
        if self._waiting.pop(ticket, None) is not None:
            return []
        if ticket in self._running:
            self._running.remove(ticket)
            self._drain.left(now)
        return self._start()

    def resize(self, places: int) -> list[Ticket]:
        """The fleet has changed. Running calls stay; returns the tickets that start now."""
        self._places = places
        return self._start()

    def patience_s(self) -> float:
        """How long a call that waits may do so, as things stand: longer while no replica is ready at all."""
        return self._patience.busy_s if self._places else self._patience.cold_s

    def retry_after_s(self, now: float) -> float:
        """When a call that came then would start, from the measured drain rate.

        Where nothing was measured yet, the patience itself is the honest guess: by then the queue has moved or is empty.
        """
        rate = self._drain.per_s(now) if self._places else None
        if not rate:
            return min(max(self.patience_s(), _LEAST_RETRY_S), _MOST_RETRY_S)
        return min(max((len(self._waiting) + 1) / rate, _LEAST_RETRY_S), _MOST_RETRY_S)

    def _start(self) -> list[Ticket]:
        started = []
        while self._waiting and len(self._running) < self._places:
            ticket, _ = self._waiting.popitem(last=False)
            self._running.add(ticket)
            started.append(ticket)
        return started
