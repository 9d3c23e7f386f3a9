"""Calls in virtual time, through a waiting room or without one, to a fleet of engine models. Pure: same visits, same end.

What is simulated is what stands between a client and its tokens: the gateway's own `WaitingRoom`, code unchanged, and for each
replica an `EngineModel`. Not simulated: the network, the gateway's own time, prefix caches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import count
from random import Random

from engines.model import EngineFigures, EngineModel, Happening
from gateway.policy.admission import Ask, Capacity, Decision, Ticket, WaitingRoom
from gateway.policy.limits import Tier

PROGRESS_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Visit:
    """A client's call. `expected_tokens`: what the gateway takes for the length of its answer; `target_s`: by when, from its
    arrival, its first token has to be there. `comes_again`: it does what Retry-After says.
    """

    at: float
    tenant: str
    tier: Tier
    prompt_tokens: int
    output_tokens: int
    expected_tokens: int
    target_s: float = math.inf
    patience_s: float | None = None
    weight: float = 1.0
    comes_again: bool = False
    caller: str = ""


@dataclass(slots=True, eq=False)
class Outcome:
    """What became of a visit. Times are absolute. `told`: when it was turned away and for how long, each time."""

    visit: Visit
    came: float  # the last time
    started: float = math.nan
    first: float = math.nan
    ended: float = math.nan
    evicted: bool = False
    told: list[tuple[float, float]] = field(default_factory=list)
    capped: bool = False
    output_tokens: int = 0
    engine: int = -1

    @property
    def was_served(self) -> bool:
        return self.first == self.first

    @property
    def first_token_s(self) -> float:
        """From when it came (the last time) to its first token."""
        return self.first - self.came

    @property
    def was_good(self) -> bool:
        return self.was_served and self.first_token_s <= self.visit.target_s

    @property
    def tokens(self) -> int:
        return self.visit.prompt_tokens + self.output_tokens


class Simulation:
    """`room`: None for calls that all go straight to the engines. `places`: of each engine, 0 for as many as it has seats."""

    def __init__(self, figures: EngineFigures, replicas: int, room: WaitingRoom | None, seed: int, places: int = 0) -> None:
        self.figures = figures
        self.engines = [EngineModel(figures) for _ in range(replicas)]
        self.room = room
        self.outcomes: list[Outcome] = []
        self.now = 0.0
        self._loads = [0] * replicas
        self._unread = [0] * replicas  # prompt tokens of calls without a first token
        self._told_progress = -math.inf
        self._random = Random(seed)  # noqa: S311 - a simulation
        self._running: dict[Ticket, Outcome] = {}
        self._waiting: dict[Ticket, Outcome] = {}
        self._tickets = count(1)
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count(1)
        if room is not None:
            self.resize(places or figures.max_num_seqs, replicas)

    def resize(self, places: int, replicas: int) -> None:
        assert self.room is not None  # noqa: S101 - only called where there is one
        capacity = Capacity(places * replicas, self.figures.kv_tokens * replicas, 0, replicas)
        self._send(self.room.resize(capacity, self.now))

    def at(self, when: float, what: Callable[[], None]) -> None:
        heappush(self._timers, (when, next(self._numbers), what))

    def run(self, visits: Iterable[Visit], until: float, every: Callable[[float], None] | None = None) -> Sequence[Outcome]:
        """Visits in the order of their times. Ends at `until`, or where nothing is left to happen."""
        coming = iter(visits)
        upcoming = next(coming, None)
        while True:
            engine_at, engine = min((self._next_of(index), index) for index in range(len(self.engines)))
            visit_at = upcoming.at if upcoming is not None else math.inf
            timer_at = self._timers[0][0] if self._timers else math.inf
            at = min(engine_at, visit_at, timer_at)
            if at > until or at == math.inf:
                return self.outcomes
            self.now = at
            if engine_at == at:
                self._engine_moves(engine)
            elif timer_at == at:
                heappop(self._timers)[2]()
            elif upcoming is not None:
                self._arrive(Outcome(upcoming, at))
                upcoming = next(coming, None)
            if every is not None:
                every(at)

    def _next_of(self, index: int) -> float:
        at = self.engines[index].next_event_at()
        return math.inf if at is None else at

    def _engine_moves(self, index: int) -> None:
        for event in self.engines[index].advance(self.now):
            ticket = Ticket(int(event.call_id))
            outcome = self._running[ticket]
            if event.what is Happening.FIRST:
                outcome.first = event.at
                self._unread[index] -= outcome.visit.prompt_tokens
                if self.room is not None:
                    self._send(self.room.first_token(ticket, event.at - outcome.started, event.at))
            elif event.what is Happening.FINISHED:
                outcome.ended = event.at
                del self._running[ticket]
                self._loads[index] -= 1
                if self.room is not None:
                    used = (outcome.visit.prompt_tokens, outcome.output_tokens)
                    self._send(self.room.leave(ticket, event.at, used))

    def _arrive(self, outcome: Outcome) -> None:
        if not outcome.told:
            self.outcomes.append(outcome)
        visit, ticket = outcome.visit, Ticket(next(self._tickets))
        outcome.output_tokens = visit.output_tokens
        if self.room is None:
            self._running[ticket] = outcome
            self._open(ticket, outcome)
            return
        ask = Ask(
            visit.tenant, visit.tier, visit.prompt_tokens, visit.expected_tokens, visit.weight, visit.patience_s, visit.caller
        )
        self._tell_progress()
        cap = self.room.output_cap(ask, self.now)
        if cap is not None and cap < outcome.output_tokens:
            outcome.output_tokens, outcome.capped = cap, True
        if cap is not None:
            ask = replace(ask, output_tokens=min(cap, ask.output_tokens))
        decision = self.room.arrive(ticket, ask, self.now)
        if decision is Decision.START:
            self._running[ticket] = outcome
            self._open(ticket, outcome)
        elif decision is Decision.WAIT:
            self._waiting[ticket] = outcome
            self._watch(ticket, ask, outcome)
        else:
            self._turn_away(ask, outcome)

    def _tell_progress(self) -> None:
        """As the gateway does: what the streams have brought, as long as the room wants to hear of it."""
        if self.room is not None and self.room.wants_progress and self.now >= self._told_progress + PROGRESS_EVERY_S:
            self._told_progress = self.now
            tokens = {ticket: self.engines[one.engine].tokens_of(str(ticket)) for ticket, one in self._running.items()}
            self.room.progress(tokens, self.now)

    def _watch(self, ticket: Ticket, ask: Ask, outcome: Outcome) -> None:
        """A waiting call is evicted when its patience is at its end."""
        assert self.room is not None  # noqa: S101
        ends = outcome.came + self.room.patience_s(ticket)

        def end() -> None:
            if self._waiting.pop(ticket, None) is not None and self.room is not None:
                outcome.evicted = True
                self._send(self.room.leave(ticket, self.now))
                self._turn_away(ask, outcome)

        self.at(ends, end)

    def _turn_away(self, ask: Ask, outcome: Outcome) -> None:
        assert self.room is not None  # noqa: S101
        self._tell_progress()
        told_s = self.room.retry_after_s(ask, self.now, self._random.random())
        outcome.told.append((self.now, told_s))
        if outcome.visit.comes_again:
            self.at(self.now + told_s, lambda: self._come_again(outcome))

    def _come_again(self, outcome: Outcome) -> None:
        outcome.came = self.now
        self._arrive(outcome)

    def _send(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            outcome = self._waiting.pop(ticket)
            self._running[ticket] = outcome
            self._open(ticket, outcome)

    def _open(self, ticket: Ticket, outcome: Outcome) -> None:
        outcome.started = self.now
        most = self.figures.max_num_seqs
        outcome.engine = min(
            range(len(self.engines)), key=lambda at: (self._loads[at] >= most, self._unread[at], self._loads[at])
        )
        self._loads[outcome.engine] += 1
        self._unread[outcome.engine] += outcome.visit.prompt_tokens
        self.engines[outcome.engine].add(str(ticket), outcome.visit.prompt_tokens, outcome.output_tokens, self.now)
