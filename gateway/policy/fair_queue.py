"""Waiting calls of one tier, weighted fair between tenants by virtual token counters.

Every tenant has a counter of the cost that was started for it, divided by its weight; whose counter is least comes next. A
tenant that comes back from being idle is lifted to the least counter of those who wait, so it has no credit for the past. Between
two tenants that both have calls waiting, the cost served in any interval, by weight, differs by no more than twice the largest
call and what estimates were corrected by (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024, theorem 4.4 and
its variant with length prediction).

Within a tenant: first come, first served; those who were told to come again, and did, before all others. They and tenants of
whom one call waits may pass a tenant with many, unless they are so far ahead of it (`SLACK_CALLS`) that they have had their turn.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator

from gateway.policy.ask import Ask, Ticket, cost_of
from gateway.policy.drain import Pace

_USAGE_MEMORY_S = 5.0
_IDLE_S = 30.0
SLACK_CALLS = 32  # so many calls' cost a tenant may be ahead of the others and still pass them
_MANY = 5  # calls of a tenant that wait or were told when to come: one with fewer is not passed over by who was told
_MOST_LOOKED_AT, _MOST_ASKED = 64, 8  # tenants: for one whose caller came when told, and for one whose call fits
_BEFORE_ALL = -(1 << 48)


class Call:
    """One waiting or running call."""

    __slots__ = (
        "answered_at",
        "ask",
        "came",
        "cost",
        "line",
        "number",
        "prompt_ahead",
        "started",
        "ticket",
        "tier",
        "tokens",
        "worked",
    )

    def __init__(self, ticket: Ticket, ask: Ask, tier: int, line: Line, came: float) -> None:
        self.ticket = ticket
        self.ask = ask
        self.tier = tier
        self.line = line
        self.came = came
        self.cost = cost_of(ask.prompt_tokens, ask.output_tokens)
        self.tokens = ask.prompt_tokens + ask.output_tokens
        self.number = 0  # its turn among the tenant's waiting calls
        self.started = -1.0
        self.prompt_ahead = 0  # prompt tokens that the engines had not answered when it started, its own included
        self.answered_at = -1.0  # when its answer began; before 0: it has not
        self.worked = 0.0  # of its cost, as far as the drain has heard of it


class Promise:
    """A caller of this tenant was told to come again at `due`."""

    __slots__ = ("caller", "cost", "due", "line", "open", "told_s")

    def __init__(self, line: Line, caller: str, due: float, told_s: float, cost: float) -> None:
        self.line = line
        self.caller = caller
        self.due = due
        self.told_s = told_s
        self.cost = cost
        self.open = True


class Line:
    """One tenant's calls in one tier."""

    __slots__ = (
        "backlog",
        "callers",
        "calls",
        "counter",
        "dues",
        "numbers",
        "promised",
        "promises",
        "returned",
        "running",
        "seen",
        "tenant",
        "usage",
        "weight",
    )

    def __init__(self, tenant: str, weight: float) -> None:
        self.tenant = tenant
        self.weight = weight
        self.counter = 0.0
        self.numbers: list[int] = []  # of the waiting calls, in order
        self.calls: dict[int, Call] = {}
        self.backlog = 0.0  # cost of the waiting calls
        self.returned = 0.0  # of those of them that came again
        self.running = 0
        self.callers: dict[str, Promise] = {}  # the promises whose callers are known
        self.promises: list[Promise] = []  # the first due first
        self.dues: list[float] = []  # of those, in order
        self.promised = 0.0  # cost of those
        self.usage = Pace(_USAGE_MEMORY_S)  # cost started
        self.seen = 0.0

    def promised_before(self, at: float) -> float:
        return self.promised * bisect_left(self.dues, at) / len(self.dues) if self.dues else 0.0

    def is_idle(self) -> bool:
        return not self.numbers and not self.running and not self.promises


class FairQueue:
    """One tier of one model."""

    def __init__(self) -> None:
        self.lines: dict[str, Line] = {}
        self.waiting = 0
        self.waiting_tokens = 0
        self.waiting_prompt_tokens = 0
        self.backlog = 0.0
        self.returned = 0.0
        self.promised = 0.0
        self.dues: list[float] = []  # of all promises, in order
        self.usage = Pace(_USAGE_MEMORY_S)
        self._busy_weights = 0.0  # of those who have calls waiting or running
        self._lines = 0  # that have calls waiting or were promised a turn
        self._weights = 0.0  # of those who wait or were promised a turn
        self._order: list[tuple[float, int]] = []  # counter and first number of each line that waits
        self._heads: dict[int, Line] = {}  # lines by first number
        self._returned: list[int] = []  # those whose caller came when told
        self._singles: list[int] = []  # those that are the only ones of their lines, and not told
        self._clock = 0.0
        self._numbers = 0
        self._sweep_at = 64

    def enter(self, ask: Ask, now: float) -> Line:
        """The tenant's line. One that has nothing waiting is lifted to those who have."""
        line = self.lines.get(ask.tenant)
        if line is None:
            if len(self.lines) >= self._sweep_at:
                self._sweep(now)
            line = self.lines[ask.tenant] = Line(ask.tenant, ask.weight)
        elif line.weight != ask.weight:
            self._reweigh(line, ask.weight)
        line.seen = now
        if not line.numbers:
            line.counter = max(line.counter, self._order[0][0] if self._order else self._clock)
        return line

    def add(self, call: Call, returned: bool) -> None:
        """To the end of its line; `returned`: before those who were not told to come again."""
        line = call.line
        self._numbers += 1
        call.number = self._numbers + _BEFORE_ALL if returned else self._numbers
        self._unlist(line)
        self._inactive(line)
        insort(line.numbers, call.number)
        line.calls[call.number] = call
        line.backlog += call.cost
        self.waiting += 1
        self.waiting_tokens += call.tokens
        self.waiting_prompt_tokens += call.ask.prompt_tokens
        self.backlog += call.cost
        if returned:
            line.returned += call.cost
            self.returned += call.cost
        self._active(line)
        self._list(line)

    def turns(self) -> Iterator[Call]:
        """Whose turn it is, and who comes next if that call has to leave a place for others: tenants that are not far ahead of
        the first. Somebody has to wait.
        """
        most = self._order[0][0] + SLACK_CALLS * self.backlog / self.waiting
        if self._singles or self._returned:
            early = self._early(most)
            if early is not None:
                yield early.calls[early.numbers[0]]
        for counter, number in self._order[:_MOST_ASKED]:
            if counter > most:
                return
            yield self._heads[number].calls[number]

    def _early(self, most: float) -> Line | None:
        """Who may pass the tenants with many calls, unless it is far ahead of them: whoever came first of those with one call,
        then whoever was told to come first and did.
        """
        first = self._heads[self._order[0][1]]
        waits, is_many = len(first.numbers), len(first.numbers) + len(first.promises) >= _MANY
        if waits == 1 or is_many:
            for number in self._singles[:_MOST_ASKED]:
                line = self._heads[number]
                if line.counter <= most and len(line.promises) < _MANY:
                    return line
        if is_many or first.numbers[0] < 0:
            for number in self._returned[:_MOST_LOOKED_AT]:
                line = self._heads[number]
                if line.counter <= most:
                    return line
        return None

    def remove(self, call: Call) -> None:
        line = call.line
        self._unlist(line)
        self._inactive(line)
        del line.numbers[bisect_left(line.numbers, call.number)]
        del line.calls[call.number]
        self.waiting -= 1
        self.waiting_tokens -= call.tokens
        self.waiting_prompt_tokens -= call.ask.prompt_tokens
        # Sums of floats drift; empty is exactly empty.
        line.backlog = line.backlog - call.cost if line.numbers else 0.0
        self.backlog = self.backlog - call.cost if self.waiting else 0.0
        if call.number < 0:
            line.returned = line.returned - call.cost if line.numbers else 0.0
            self.returned = self.returned - call.cost if self.waiting else 0.0
        self._active(line)
        self._list(line)

    def start(self, call: Call, now: float) -> None:
        """It does not wait (any more) and is charged."""
        line = call.line
        self._clock = max(self._clock, line.counter)
        self._inactive(line)
        line.running += 1
        self._active(line)
        line.usage.add(call.cost, now)
        self.usage.add(call.cost, now)
        self.charge(line, call.cost)

    def end(self, line: Line) -> None:
        """One of its running calls does not run any more."""
        self._inactive(line)
        line.running -= 1
        self._active(line)

    def charge(self, line: Line, cost: float) -> None:
        """Negative: it was charged too much before."""
        self._unlist(line)
        line.counter += cost / line.weight
        self._list(line)

    def promise(self, promise: Promise) -> None:
        line = promise.line
        self._inactive(line)
        insort(self.dues, promise.due)
        at = bisect_right(line.dues, promise.due)
        line.dues.insert(at, promise.due)
        line.promises.insert(at, promise)
        line.promised += promise.cost
        self.promised += promise.cost
        if promise.caller:
            line.callers[promise.caller] = promise
        self._active(line)

    def settle(self, promise: Promise) -> None:
        """Kept or expired."""
        line = promise.line
        self._inactive(line)
        promise.open = False
        at = line.promises.index(promise, bisect_left(line.dues, promise.due))
        del line.promises[at]
        line.callers.pop(promise.caller, None)
        del line.dues[at]
        del self.dues[bisect_left(self.dues, promise.due)]
        line.promised = line.promised - promise.cost if line.promises else 0.0
        self.promised = self.promised - promise.cost if self.dues else 0.0
        self._active(line)

    def promised_before(self, at: float) -> float:
        """Cost of the calls of those who were told to come until then, if all cost the same."""
        return self.promised * bisect_left(self.dues, at) / len(self.dues) if self.dues else 0.0

    def weights(self, line: Line) -> float:
        """Of all who take turns, the line's own included."""
        return self._weights if line.numbers or line.promises else self._weights + line.weight

    def debt(self, line: Line) -> float:
        """The cost by which the line is ahead of those who wait."""
        return max(0.0, line.counter - self._order[0][0]) * line.weight if self._order else 0.0

    def busy_weights(self, line: Line) -> float:
        """Of all who have calls waiting or running, and of this one."""
        return self._busy_weights if line.numbers or line.running else self._busy_weights + line.weight

    def others(self, line: Line) -> int:
        """How many others take turns."""
        return self._lines - 1 if line.numbers or line.promises else self._lines

    def ahead(self, call: Call) -> int:
        """Calls of this tier whose turn comes before that of a waiting one, if all cost the same."""
        line = call.line
        own = bisect_left(line.numbers, call.number)
        rank = bisect_left(self._order, (line.counter, line.numbers[0]))
        if not own:
            return rank
        if len(self._order) > 64:
            return min(rank + own * len(self._order), self.waiting - 1)
        before = own
        for at, (_, number) in enumerate(self._order):
            if at != rank:
                before += min(len(self._heads[number].numbers), own + (1 if at < rank else 0))
        return before

    def _list(self, line: Line) -> None:
        if line.numbers:
            number = line.numbers[0]
            insort(self._order, (line.counter, number))
            self._heads[number] = line
            if number < 0:
                insort(self._returned, number)
            elif len(line.numbers) == 1:
                insort(self._singles, number)

    def _unlist(self, line: Line) -> None:
        if line.numbers:
            number = line.numbers[0]
            del self._order[bisect_left(self._order, (line.counter, number))]
            del self._heads[number]
            if number < 0:
                del self._returned[bisect_left(self._returned, number)]
            elif len(line.numbers) == 1:
                del self._singles[bisect_left(self._singles, number)]

    def _active(self, line: Line) -> None:
        """What is known of all lines together, with this one; `_inactive`: without it."""
        if line.numbers or line.running:
            self._busy_weights += line.weight
        if line.numbers or line.promises:
            self._weights += line.weight
            self._lines += 1

    def _inactive(self, line: Line) -> None:
        if line.numbers or line.running:
            self._busy_weights -= line.weight
        if line.numbers or line.promises:
            self._weights -= line.weight
            self._lines -= 1

    def _reweigh(self, line: Line, weight: float) -> None:
        self._inactive(line)
        line.weight = weight
        self._active(line)

    def _sweep(self, now: float) -> None:
        """Forgets tenants that have been idle for a while, their debts included."""
        for line in [line for line in self.lines.values() if line.is_idle() and line.seen + _IDLE_S < now]:
            del self.lines[line.tenant]
        self._sweep_at = 2 * len(self.lines) + 64
