"""When a call's turn will be: from what is before it and the rate at which full replicas drain."""

from __future__ import annotations

import math
from bisect import bisect_left

from gateway.policy.drain import Drain
from gateway.policy.fair_queue import SLACK_CALLS, Call, FairQueue, Line
from gateway.policy.holding import BATCH, KV_USED, Holding
from gateway.policy.promise import BOOKED, Promises

_GUESSES = 8  # at when a call's turn will be, each later than the one before
_BESIDE, _MORE_S = 1.25, 1.0  # times what a fair share takes, and more, is told to whom the calendar has no time for
_AHEAD_CALLS = SLACK_CALLS // 2  # that a tenant may be promised beyond its fair share at any time
_CHECKS = 16  # of the times that a tenant's callers were told
_LEAST_BATCH = 0.02  # of the rate, for telling batch calls anything at all


class Outlook:
    def __init__(self, holding: Holding, queues: list[FairQueue], promises: list[Promises]) -> None:
        self._holding = holding
        self._queues = queues
        self._promises = promises
        self._drain = Drain()

    def passed(self, now: float) -> None:
        """Called before what runs changes, and before the rate is asked for."""
        self._drain.passed(self._holding.calls, self._holding.tokens, self._holding.is_full, now)

    def left(self, call: Call) -> None:
        self._drain.left(call.cost - call.worked)

    @property
    def wants_progress(self) -> bool:
        return self._drain.is_new

    def progress(self, running: list[tuple[Call, int | None]], now: float) -> None:
        """What running calls have generated, in tokens. One of which that is not known, or nothing yet, gets on as the others."""
        self.passed(now)
        if not self._drain.is_new:
            return
        done_cost, done_s = 0.0, 0.0
        for call, tokens in running:
            if tokens and call.answered_at >= 0.0:
                done_cost += self._worked(call, _done(call, tokens, now))
                done_s += now - call.started
        for call, tokens in running:
            if done_s > 0.0 and not (tokens and call.answered_at >= 0.0):
                self._worked(call, (now - call.started) * done_cost / done_s)

    def _worked(self, call: Call, cost: float) -> float:
        """All that it has done of its estimate."""
        done = min(cost, call.cost)
        if done > call.worked:
            self._drain.worked(done - call.worked)
            call.worked = done
        return call.worked

    def rate(self, tier: int, now: float) -> float:
        """The cost a second at which this tier's calls start while some of them wait: what the others do not use of all there
        is, and its share at least. 0: not known yet.
        """
        capacity, shares = self._holding.capacity, self._holding.shares
        self.passed(now)
        rate = self._drain.per_s(capacity.places, capacity.tokens * KV_USED, self._holding.typical_cost)
        others, rivals = 0.0, shares[tier]
        for other in range(BATCH):
            if other != tier:
                others += self._queues[other].usage.per_s(now)
                if self._queues[other].waiting:
                    rivals += shares[other]
        return max(rate - others, rate * (_LEAST_BATCH if tier == BATCH else shares[tier] / rivals))

    def starts_within(self, most_s: float, call: Call, returned: bool, now: float) -> bool:
        """Whether a call that comes now would. Those who were told to come before its turn are ahead of it; so the later that
        is, the more they are.
        """
        queue, line, rate = self._queues[call.tier], call.line, self.rate(call.tier, now)
        if not rate:
            return True  # it soon will be
        left = self._left(queue, line, rate, now)
        if returned:
            return self._turn_s(queue, line, line.returned, queue.returned, rate, left) <= most_s
        kept, before_s = self._promises[call.tier].kept_share, 0.0
        for _ in range(_GUESSES):
            own = line.backlog + line.promised_before(now + before_s) * kept
            ahead = queue.backlog + queue.promised_before(now + before_s) * kept
            wait_s = self._turn_s(queue, line, own, ahead, rate, left)
            if wait_s > most_s:
                return False
            if wait_s <= before_s or not queue.dues:
                return True
            before_s = wait_s
        return False

    def wait_s(self, call: Call, now: float) -> float | None:
        """From now on, of a call that waits; None: not known."""
        queue, line, rate = self._queues[call.tier], call.line, self.rate(call.tier, now)
        if not rate:
            return None
        left = self._left(queue, line, rate, now)
        own = line.backlog / len(line.numbers) * bisect_left(line.numbers, call.number)
        return self._turn_s(queue, line, own, queue.backlog / queue.waiting * queue.ahead(call), rate, left)

    def place_s(self, tier: int, now: float) -> float:
        """Between two starts of this tier while some of it wait."""
        rate = self.rate(tier, now)
        return self._holding.typical_cost / rate if rate else 0.0

    def backlog_s(self, tier: int, now: float) -> float:
        """What all that wait in a tier, or were told to come again, will take."""
        queue, rate = self._queues[tier], self.rate(tier, now)
        return (queue.backlog + queue.promised * self._promises[tier].kept_share) / rate if rate else 0.0

    def promised_s(self, tier: int, line: Line, cost: float, least_s: float, now: float) -> float | None:
        """The first time from `least_s` on, behind all who wait, that is not promised to anybody, later for a tenant that is
        ahead of the others; but one that others have pushed back to more than twice what its fair share takes gets that,
        promised or not. None: not known.
        """
        queue, promises, rate = self._queues[tier], self._promises[tier], self.rate(tier, now)
        if not rate:
            return None
        turn_s = self._turn_s(queue, line, line.backlog, queue.backlog, rate, self._left(queue, line, rate, now))
        earliest_s = max(least_s, turn_s)
        own = line.backlog + line.promised * promises.kept_share + queue.debt(line)
        fair_s = max(least_s, self._fair(queue, line, own) / (rate * BOOKED))
        free_s = float(promises.free_s(earliest_s, cost, rate, now))
        paced_s = self._paced_s(tier, line, cost, free_s, rate, now)
        if paced_s > free_s:
            free_s = float(promises.free_s(paced_s, cost, rate, now))
        return free_s if free_s < 2.0 * fair_s else max(earliest_s, fair_s) * _BESIDE + _MORE_S

    def _paced_s(self, tier: int, line: Line, cost: float, told_s: float, rate: float, now: float) -> float:
        """The first time from `told_s` on at which one more call does not put the line so far ahead of the others that they go
        first: neither then nor when its own callers come who were told before. Not twice as late, since rates are estimates.
        """
        queue, kept = self._queues[tier], self._promises[tier].kept_share
        if not queue.others(line):
            return told_s
        share = line.weight / queue.weights(line)
        spare = _AHEAD_CALLS * self._holding.typical_cost - line.backlog - queue.debt(line) - cost
        each = line.promised * kept / max(1, len(line.dues))
        first, last = bisect_left(line.dues, now + told_s), len(line.dues)
        least_s = told_s
        for at in range(last - 1, first - 1, -max(1, (last - first) // _CHECKS)):
            due_s = line.dues[at] - now
            if each * (at + 1) - spare > share * self._served(tier, due_s, rate, now):
                least_s, first = due_s, at + 1
                break
        own = each * first - spare
        if own > share * self._served(tier, least_s, rate, now):
            least_s = min(max(least_s, own / (share * rate)), 2.0 * least_s)
        return least_s

    def _served(self, tier: int, within_s: float, rate: float, now: float) -> float:
        """The tier's cost until then."""
        queue = self._queues[tier]
        booked = queue.backlog + queue.promised_before(now + within_s) * self._promises[tier].kept_share
        return max(within_s * rate, booked)

    def _turn_s(self, queue: FairQueue, line: Line, own: float, ahead: float, rate: float, left: float) -> float:
        """Until a call starts that so much of its own tenant's cost is before, and of all of its tier's if no others come.

        Not longer than the tenant's fair share takes, which nobody can take away. Below that, as if tenants with less waiting
        went on as they do.
        """
        own += queue.debt(line)
        flow = own * rate / left if left > 0.0 else math.inf if own else 0.0
        return (min(self._fair(queue, line, own), max(ahead, flow)) + self._holding.typical_cost) / rate

    def _left(self, queue: FairQueue, line: Line, rate: float, now: float) -> float:
        """Of the rate, what the tier's other tenants do not use."""
        return rate - queue.usage.per_s(now) + line.usage.per_s(now)

    def _fair(self, queue: FairQueue, line: Line, own: float) -> float:
        """Cost of the tier that is served before a call with so much of its own tenant's before it: while that is, the others
        are served by weight, and they may have one call each that comes first.
        """
        return own * queue.weights(line) / line.weight + self._holding.typical_cost * queue.others(line)


def _done(call: Call, tokens: int, now: float) -> float:
    """Of its cost, as large a part as of the time that it takes if the rest of its answer comes as fast as what has come."""
    answered_s, decodes_s = call.answered_at - call.started, now - call.answered_at
    takes_s = answered_s + decodes_s * max(1.0, call.ask.output_tokens / tokens)
    return call.cost * (now - call.started) / takes_s if takes_s > 0.0 else 0.0
