"""What all workers together hold of one limit: the budget from which each takes its slices. The model of `lua/exchange.lua`.

Every worker tells its own figure anew each time: what it has spent of the running window, or keeps in order to spend it. So a
lost answer, a lost worker or a store that has forgotten everything heals with the next telling, and no figure is ever added
twice.

What a store has forgotten that no worker can tell any more, the ledger may know. Whenever the store has begun anew (an *epoch*),
all workers tell again, and then the first that knows what the ledger has of the running window says so. What is more than the
workers had settled by then, and than those hold who did not tell again, was spent by some that are forgotten. Before that has
been said, nothing is given.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.policy.window import Calendar, Period, window_at


@dataclass(frozen=True, slots=True)
class Ask:
    """One worker's telling of what it holds, and what it needs more.

    `number` grows from each of a worker's asks to the next: one that was overtaken by a later one says nothing any more. `told`
    is of `window`. With `need` 0 nothing is asked for; else a slice is given that has at least so much, or none. Where `lasts_ms`
    is not 0, what the worker holds is its own only so long. `dead` are workers whose figures are in this one's from now on.
    `settled` is the part of `told` that was of calls that were over when `epoch` was new, and `known` what the ledger had of
    `known_window` after that; -1: not read yet.
    """

    worker: str
    number: int
    limit: int
    period: Period
    calendar: Calendar
    window: int = 0
    told: int = 0
    need: int = 0
    workers: int = 1
    lasts_ms: int = 0
    dead: tuple[str, ...] = ()
    settled: int = 0
    known: int = 0
    known_window: int = 0
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Given:
    """`left` is what nobody holds; below zero where more was used than the limit."""

    window: int
    left_ms: int
    slice: int
    left: int


@dataclass(slots=True)
class Held:
    """By one worker, as it told last; `until_ms` 0 for good. `settled` is what the ledger may have of it at most: all, once the
    ledger was asked in this epoch.
    """

    amount: int
    number: int
    until_ms: int
    settled: int


@dataclass(slots=True)
class Pool:
    """One limit's budget. `owed` was used beyond the windows before, and lacks in this one; `lost` was used in this one by
    workers of whom only the ledger knows, which was last asked in `epoch`.
    """

    window: int = 0
    owed: int = 0
    lost: int = 0
    epoch: int = -1
    held: dict[str, Held] = field(default_factory=dict)

    def exchange(self, ask: Ask, now_ms: int) -> Given:
        window, left_ms = window_at(ask.period, now_ms, ask.calendar)
        self._turn(window, ask.limit)
        for worker in ask.dead:
            self.held.pop(worker, None)
        for worker in [worker for worker, held in self.held.items() if 0 < held.until_ms <= now_ms]:
            del self.held[worker]
        mine = self.held.get(ask.worker)
        if mine is not None and mine.number >= ask.number:
            return Given(self.window, left_ms, 0, ask.limit - self.total())
        told, settled = (ask.told, ask.settled) if ask.window == self.window else (0, 0)
        self.held[ask.worker] = Held(told, ask.number, now_ms + ask.lasts_ms if ask.lasts_ms else 0, settled)
        if ask.known >= 0 and ask.epoch > self.epoch:
            known = ask.known if ask.known_window == self.window else 0
            self.lost = max(self.lost, known - sum(held.settled for held in self.held.values()))
            self.epoch = ask.epoch
        free = ask.limit - self.total()
        may = self.epoch >= ask.epoch and 0 < ask.need <= free
        slice = min(free, max(ask.need, free // (2 * ask.workers))) if may else 0
        held = self.held[ask.worker]
        held.amount += slice
        if self.epoch >= ask.epoch:
            held.settled = held.amount
        return Given(self.window, left_ms, slice, free - slice)

    def total(self) -> int:
        return self.owed + self.lost + sum(held.amount for held in self.held.values())

    def _turn(self, window: int, limit: int) -> None:
        """A later window than the one before begins with what that one was exceeded by. Clocks that go back change nothing."""
        if window <= self.window:
            return
        passed = window - self.window
        self.owed = max(0, self.total() - limit * passed) if self.window else 0
        self.held.clear()
        self.lost = 0
        self.window = window
