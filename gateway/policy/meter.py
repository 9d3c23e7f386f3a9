"""One limit as a worker sees it: what it may still spend in the running window. Taken before a call, settled after it.

A meter knows nothing of where its grants come from: the only worker of an installation is granted the whole limit at each turn,
one of several gets slices of it (`gateway.policy.pool`). What was used beyond the grant is owed: it lacks in the next window.
"""

from __future__ import annotations

from enum import Enum

from gateway.policy.limits import Limits, Scope
from gateway.policy.pool import Given
from gateway.policy.window import Calendar, Period, phase_of

NEVER = float("-inf")
MICRO = 1_000_000  # parts of a KRW, in which budgets are counted


class Unit(Enum):
    REQUESTS = "requests"
    TOKENS = "tokens"
    MICRO_KRW = "micro_krw"
    CALLS = "calls"  # running at once


class Kind(Enum):
    """The values are the fields of `Limits`."""

    CONCURRENT = "concurrent"
    REQUESTS_PER_MINUTE = "requests_per_minute"
    REQUESTS_PER_DAY = "requests_per_day"
    TOKENS_PER_MINUTE = "tokens_per_minute"
    TOKENS_PER_DAY = "tokens_per_day"
    TOKENS_PER_MONTH = "tokens_per_month"
    KRW_PER_MONTH = "krw_per_month"


UNITS = {
    Kind.CONCURRENT: Unit.CALLS,
    Kind.REQUESTS_PER_MINUTE: Unit.REQUESTS,
    Kind.REQUESTS_PER_DAY: Unit.REQUESTS,
    Kind.TOKENS_PER_MINUTE: Unit.TOKENS,
    Kind.TOKENS_PER_DAY: Unit.TOKENS,
    Kind.TOKENS_PER_MONTH: Unit.TOKENS,
    Kind.KRW_PER_MONTH: Unit.MICRO_KRW,
}
PERIODS = {
    Kind.CONCURRENT: Period.NONE,
    Kind.REQUESTS_PER_MINUTE: Period.MINUTE,
    Kind.REQUESTS_PER_DAY: Period.DAY,
    Kind.TOKENS_PER_MINUTE: Period.MINUTE,
    Kind.TOKENS_PER_DAY: Period.DAY,
    Kind.TOKENS_PER_MONTH: Period.MONTH,
    Kind.KRW_PER_MONTH: Period.MONTH,
}
PERIOD_S = {Period.MINUTE: 60.0, Period.DAY: 86_400.0, Period.MONTH: 31 * 86_400.0, Period.NONE: 0.0}


def limit_of(limits: Limits, kind: Kind) -> int | None:
    """In the kind's unit, so that KRW become micro-KRW."""
    value: int | None = getattr(limits, kind.value)
    return value * MICRO if value is not None and kind is Kind.KRW_PER_MONTH else value


class Meter:
    """Of one scope and kind. `ends` is the clock's time at which the running window, or what is held of it, is over.

    `kept` is where the figures are written, three integers that outlive the process; whoever finds them there goes on from them.
    Figures are written in an order in which a death between two of them leaves too much spent, and never too little.
    """

    __slots__ = (
        "calendar",
        "ends",
        "granted",
        "is_used",
        "kept",
        "kind",
        "left_elsewhere",
        "limit",
        "low",
        "period",
        "refused",
        "reserved",
        "scope_id",
        "spent",
        "window",
    )

    def __init__(self, scope_id: str, kind: Kind, limit: int, offset_ms: int, kept: memoryview | None = None) -> None:
        self.scope_id = scope_id
        self.kind = kind
        self.limit = limit
        self.period = PERIODS[kind]
        self.calendar = Calendar(offset_ms, phase_of(scope_id))
        self.window = 0
        self.ends = NEVER
        self.granted = 0
        self.spent = 0
        self.reserved = 0  # of what is spent, by calls that are not over
        self.low = 0  # with less than this left, more should be asked for
        self.left_elsewhere = 0  # what nobody held when that was last heard; below zero where more was used than the limit
        self.refused = 0  # the amount of a call that was turned away since the last look
        self.is_used = False  # taken from since the last look
        self.kept = kept
        if kept is not None:
            kept[0] = 0
            kept[1] = 0
            kept[2] = 0

    @property
    def left(self) -> int:
        return self.granted - self.spent

    @property
    def settled(self) -> int:
        """What calls that are over have spent."""
        return max(0, self.spent - self.reserved)

    def lacks(self, amount: int, now: float) -> bool:
        return self.granted - self.spent < amount or now >= self.ends

    def take(self, amount: int) -> bool:
        """True if little is left then."""
        self.spent += amount
        self.reserved += amount
        self.is_used = True
        if self.kept is not None:
            self.kept[2] = self.spent
        return self.granted - self.spent < self.low

    def settle(self, window: int, took: int, used: int) -> None:
        """What was taken in that window turned out to be so much. Unused of a past window is gone, overuse is owed."""
        self.reserved -= took
        if window != self.window and used <= took:
            return
        self.spent += used - took
        if self.kept is not None:
            self.kept[2] = self.spent

    def turn(self, window: int, ends: float, paid: int) -> None:
        """A new window, of which nothing is granted yet. `paid` of what was spent was accounted for before."""
        self.window = window
        self.ends = ends
        self.granted = 0
        self.low = 0
        self.spent = max(0, self.spent - paid)
        self._keep()

    def grant(self, granted: int) -> None:
        """So much may be spent in this window, by this worker, in all."""
        self.granted = granted
        if self.kept is not None:
            self.kept[1] = granted

    def open_whole(self, window: int, ends: float) -> None:
        """The window of the only worker: all of the limit is its own."""
        if window > self.window:
            self.turn(window, ends, self.limit * (window - self.window) if self.window else 0)
        self.ends = ends
        self.left_elsewhere = 0
        self.grant(self.limit)

    def open_share(self, window: int, ends: float, share: int) -> None:
        """The window of a worker that cannot ask anybody: so much is its own, but nothing more of one that runs."""
        if window > self.window:
            self.turn(window, ends, self.granted)
            self.grant(share)
            self.left_elsewhere = 0

    def told(self) -> int:
        """What this worker holds, for the pool: what it has spent, or still may."""
        return max(self.granted, self.spent)

    def give_up(self, keep: int) -> None:
        """Keep no more than so much of what is left; the pool is told next."""
        if self.granted > self.spent + keep:
            self.grant(self.spent + keep)
        self.low = 0

    def hear(self, window: int, told: int, given: Given, ends: float) -> None:
        """The pool's answer to `told`, which was of that window."""
        if given.window < self.window:
            return
        if given.window > self.window:
            self.turn(given.window, ends, self.granted if self.window else 0)
        if window != self.window:
            told = 0
        self.ends = ends
        self.grant(told + given.slice)
        self.left_elsewhere = given.left
        if given.slice:
            self.low = given.slice // 2 if given.left > 0 else 0

    def adopt(self, window: int, spent: int) -> None:
        """A worker that is gone has spent so much of that window: it counts as spent here from now on."""
        if window < self.window or self.period is Period.NONE:
            return
        if window > self.window:
            self.turn(window, NEVER, self.granted if self.window else 0)
        self.spent += spent
        self.granted += spent
        self._keep()

    def relimit(self, limit: int) -> None:
        """Another limit holds from now on: what is left of the old one is given up."""
        self.left_elsewhere += limit - self.limit + max(0, self.left)
        self.limit = limit
        self.give_up(0)

    def wait_s(self, amount: int, now: float) -> float:
        """After how long so much fits, if nobody else takes it: with the turn of the window, or with a later one."""
        over = amount - self.limit - min(0, self.left + self.left_elsewhere)
        more = -(-over // self.limit) if over > 0 and self.limit > 0 else 0
        return max(0.0, self.ends - now) + more * PERIOD_S[self.period]

    def _keep(self) -> None:
        if self.kept is not None:
            self.kept[0] = self.window
            self.kept[1] = self.granted
            self.kept[2] = self.spent


def meters_of(scope: Scope) -> list[tuple[Kind, int]]:
    """The kinds that this scope has limits of."""
    return [(kind, limit) for kind in Kind if (limit := limit_of(scope.limits, kind)) is not None]
