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

from gateway.policy.limits import Tier

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


class Step(Enum):
    """The overload ladder; each step includes those before it. The names are what metrics and `/internal/demand` show."""

    NONE = "none"
    BATCH_WAITS = "batch_waits"
    OUTPUT_CAPPED = "output_capped"
    FALL_BACK = "fall_back"
    REJECTING = "rejecting"


@dataclass(frozen=True, slots=True)
class Ask:
    """What a call asks of a model's replicas. Tokens are estimates; `patience_s` is the request's own longest wait."""

    tenant: str
    tier: Tier
    prompt_tokens: int
    output_tokens: int
    weight: float = 1.0
    patience_s: float | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """The waiting room's settings."""

    most_waiting: int = 1024
    busy_s: float = 30.0
    cold_s: float = 120.0
    batch_s: float = 600.0
    prompt_s: float = 0.5
    target_first_token_s: float = 2.0
    free_output_cap_tokens: int = 256
    reserved_share: float = 0.4
    paid_share: float = 0.4
    free_share: float = 0.2


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the ready replicas hold together."""

    places: int
    tokens: int = 0
    starting: int = 0
    replicas: int = 1


@dataclass(frozen=True, slots=True)
class TierDemand:
    waiting: int = 0
    waiting_tokens: int = 0
    running: int = 0
    running_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of one model now, for people and autoscalers. Rates are of the last seconds, tokens are prompt and output."""

    tiers: dict[Tier, TierDemand]
    arrivals_per_s: float
    arrival_tokens_per_s: float
    drain_per_s: float
    drain_tokens_per_s: float
    expected_wait_s: float
    rejected: int
    rejections_per_s: float
    step: Step
    capacity: Capacity


class WaitingRoom:
    """One model's waiting and running calls."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._capacity = Capacity(0)
        self._queue = Queue(Patience(rules.most_waiting, rules.busy_s, rules.cold_s))
        self._asks: dict[Ticket, Ask] = {}
        self._rejected = 0

    def arrive(self, ticket: Ticket, ask: Ask, now: float) -> Decision:
        decision = self._queue.arrive(ticket, now)
        if decision is Decision.REJECT:
            self._rejected += 1
        else:
            self._asks[ticket] = ask
        return decision

    def leave(self, ticket: Ticket, now: float, used: tuple[int, int] | None = None) -> list[Ticket]:
        """The call is over, or its client is gone while it waited: `used` are the engine's counts of prompt and completion
        tokens. Returns the tickets that start now. A ticket that is gone already changes nothing.
        """
        self._asks.pop(ticket, None)
        return self._queue.leave(ticket, now)

    def first_token(self, ticket: Ticket, took_s: float, now: float) -> list[Ticket]:
        """The engine has begun to answer, `took_s` after it was sent the call. Returns the tickets that start now."""
        return []

    def resize(self, capacity: Capacity, now: float) -> list[Ticket]:
        """The fleet has changed. Running calls stay; returns the tickets that start now."""
        self._capacity = capacity
        return self._queue.resize(capacity.places)

    def patience_s(self, ticket: Ticket) -> float:
        """The longest wait of this ticket, as things stand: another while no replica is ready at all."""
        patience_s, ask = self._queue.patience_s(), self._asks.get(ticket)
        return patience_s if ask is None or ask.patience_s is None else min(patience_s, ask.patience_s)

    def position(self, ticket: Ticket) -> int:
        """In the order in which calls start as things stand, from 1; 0: does not wait."""
        waiting = self._queue._waiting
        return list(waiting).index(ticket) + 1 if ticket in waiting else 0

    def expected_wait_s(self, ticket: Ticket, now: float) -> float:
        """From now on."""
        rate = self._queue._drain.per_s(now)
        return self.position(ticket) / rate if rate else self._queue.patience_s()

    def retry_after_s(self, ask: Ask, now: float, spread: float) -> float:
        """When the caller that is being turned away should come again; a promise, so ask once for each. `spread`: random, 0 to 1."""
        return self._queue.retry_after_s(now) * (1.0 + 0.1 * spread)

    def step(self, now: float) -> Step:
        return Step.BATCH_WAITS if self._queue.waiting else Step.NONE

    def output_cap(self, ask: Ask, now: float) -> int | None:
        """The most output tokens that this call gets as things stand; None: as many as it asks for."""
        return None

    def prefers_fall_back(self, ask: Ask, now: float) -> bool:
        """Whether this call should rather go to a model that it names as its fall-back."""
        return False

    def demand(self, now: float) -> Demand:
        tiers = {}
        for tier in Tier:
            waiting = [ask for ticket, ask in self._asks.items() if ask.tier is tier and ticket in self._queue._waiting]
            running = [ask for ticket, ask in self._asks.items() if ask.tier is tier and ticket in self._queue._running]
            tiers[tier] = TierDemand(len(waiting), _tokens(waiting), len(running), _tokens(running))
        rate = self._queue._drain.per_s(now) or 0.0
        return Demand(
            tiers=tiers,
            arrivals_per_s=0.0,
            arrival_tokens_per_s=0.0,
            drain_per_s=rate,
            drain_tokens_per_s=0.0,
            expected_wait_s=(self._queue.waiting + 1) / rate if rate else 0.0,
            rejected=self._rejected,
            rejections_per_s=0.0,
            step=self.step(now),
            capacity=self._capacity,
        )


def _tokens(asks: list[Ask]) -> int:
    return sum(ask.prompt_tokens + ask.output_tokens for ask in asks)
