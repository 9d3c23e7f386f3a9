"""May this call start now, wait, or go away? One waiting room a model.

The facts come in with the time; nothing here waits. `gateway.adapters.asyncio_gate` does the waiting.

States of a ticket: *running* (has a place), *waiting*, or gone. Rejected: turned away before the queue. Evicted: out of it.

What fits: a call starts if the ready replicas have a place and KV cache for it and have answered enough of what they were sent
before (`window`). Who is next: tiers by virtual counters over their guaranteed shares, so that each has its share and all of what
the others leave idle; batch only if nobody else waits and some capacity stays free; within a tier, tenants by `fair_queue`.
Who is turned away: whose expected wait (`drain`) is longer than its patience, or whose tenant or tier fills the room.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum

from gateway.policy.ask import Ask, Capacity, Rules, Ticket, cost_of
from gateway.policy.demand import Demand, Step, TierDemand
from gateway.policy.drain import Drain, Pace
from gateway.policy.fair_queue import Call, FairQueue, Line
from gateway.policy.limits import Tier
from gateway.policy.promise import BOOKED, MOST_S, Promises
from gateway.policy.window import AnswerWindow

__all__ = ["Ask", "Capacity", "Decision", "Demand", "Patience", "Queue", "Rules", "Step", "Ticket", "TierDemand", "WaitingRoom"]

_LEAST_RETRY_S, _MOST_RETRY_S = 1.0, 720.0


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


_TIERS = (Tier.RESERVED, Tier.PAID, Tier.FREE, Tier.BATCH)
_FREE, _BATCH = 2, 3
_INDEX = {tier: index for index, tier in enumerate(_TIERS)}
_KV_USED = 0.95  # of the cache; the rest is for what estimates were wrong by
_BATCH_USED = 0.9  # of all that there is: batch has what is idle, and whoever comes next shall find a place
_FULL = 0.8  # of the places or tokens: from then on the replicas count as full
_RATE_MEMORY_S = 10.0
_ROOM_USED = (1.0, 1.0, 7.0 / 8.0, 3.0 / 4.0)  # by tier: free and batch calls leave room to wait for those before them
_BATCH_SHARE = 1e-9
_RESERVE_EVERY_S, _RESERVE_SHARE = 0.25, 1.0 / 8.0
_GUESSES = 8  # at when a call's turn will be, each later than the one before
_STEP_HOLDS_S, _SUSTAINED_S, _REJECTING_S = 2.0, 2.0, 5.0
_STEPS = (Step.NONE, Step.BATCH_WAITS, Step.OUTPUT_CAPPED, Step.FALL_BACK, Step.REJECTING)


class WaitingRoom:
    """One model's waiting and running calls."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._capacity = Capacity(0)
        self._calls: dict[Ticket, Call] = {}
        self._queues = [FairQueue() for _ in _TIERS]
        self._promises = [Promises(queue) for queue in self._queues]
        self._shares = [rules.reserved_share, rules.paid_share, rules.free_share, _BATCH_SHARE]
        self._tier_arrivals = [Pace(_RATE_MEMORY_S) for _ in _TIERS]
        self._reserves = [0] * len(_TIERS)
        self._reserves_at = -math.inf
        self._running = [0] * len(_TIERS)
        self._running_tokens = [0] * len(_TIERS)
        self._held_calls = self._held_tokens = self._waiting = 0
        self._held_cost = 0.0
        self._window = AnswerWindow(rules.target_first_token_s)
        self._drain = Drain()
        self._arrivals, self._arrival_tokens = Pace(_RATE_MEMORY_S), Pace(_RATE_MEMORY_S)
        self._departures, self._departure_tokens = Pace(_RATE_MEMORY_S), Pace(_RATE_MEMORY_S)
        self._rejections = Pace(_RATE_MEMORY_S)
        self._rejected = 0
        self._rejected_at = -math.inf
        self._pressed_since = math.inf
        self._step, self._step_at = 0, 0.0

    @property
    def running(self) -> int:
        return self._held_calls

    @property
    def waiting(self) -> int:
        return self._waiting

    def arrive(self, ticket: Ticket, ask: Ask, now: float) -> Decision:
        tier = _INDEX[ask.tier]
        queue = self._queues[tier]
        line = queue.enter(ask, now)
        call = Call(ticket, ask, tier, line, now)
        self._arrivals.add(1.0, now)
        self._arrival_tokens.add(call.tokens, now)
        returned = self._promises[tier].take_up(line, ask.caller, now)
        self._tier_arrivals[tier].add(1.0, now)
        if self._is_next(call, now) and self._fits(call, now):
            self._calls[ticket] = call
            self._begin(call, now)
            return Decision.START
        if not self._may_wait(call, returned, now):
            self._rejected += 1
            self._rejected_at = now
            self._rejections.add(1.0, now)
            return Decision.REJECT
        self._calls[ticket] = call
        queue.add(call, returned)
        self._waiting += 1
        if tier != _BATCH and self._pressed_since == math.inf:
            self._pressed_since = now
        return Decision.WAIT

    def leave(self, ticket: Ticket, now: float, used: tuple[int, int] | None = None) -> list[Ticket]:
        """The call is over, or its client is gone while it waited: `used` are the engine's counts of prompt and completion
        tokens. Returns the tickets that start now. A ticket that is gone already changes nothing.
        """
        call = self._calls.pop(ticket, None)
        if call is None:
            return []
        queue = self._queues[call.tier]
        if call.started < 0.0:
            queue.remove(call)
            self._waiting -= 1
            return self._start(now)
        self._pass(now)
        self._give_back(call, now)
        if used is not None:
            queue.charge(call.line, cost_of(used[0], used[1]) - call.cost)
            self._departure_tokens.add(used[0] + used[1], now)
        return self._start(now)

    def first_token(self, ticket: Ticket, took_s: float, now: float) -> list[Ticket]:
        """The engine has begun to answer, `took_s` after it was sent the call: for calls that stream. Returns the tickets that
        start now.
        """
        call = self._calls.get(ticket)
        if call is None or call.started < 0.0 or call.answered:
            return []
        call.answered = True
        self._window.answered(call, took_s, now)
        return self._start(now)

    def resize(self, capacity: Capacity, now: float) -> list[Ticket]:
        """The fleet has changed. Running calls stay; returns the tickets that start now."""
        self._capacity = capacity
        self._window.resize(capacity.replicas)
        return self._start(now)

    def patience_s(self, ticket: Ticket) -> float:
        """The longest wait of this ticket, as things stand: another while no replica is ready at all."""
        call = self._calls.get(ticket)
        return self._patience_s(call.ask) if call is not None else 0.0

    def position(self, ticket: Ticket) -> int:
        """In the order in which calls start as things stand, from 1; 0: does not wait."""
        call = self._calls.get(ticket)
        if call is None or call.started >= 0.0:
            return 0
        turn = self._queues[call.tier].ahead(call) + 1
        if call.tier == _BATCH:
            return turn + self._waiting - self._queues[_BATCH].waiting
        for tier in range(_BATCH):
            if tier != call.tier:
                turn += min(self._queues[tier].waiting, int(turn * self._shares[tier] / self._shares[call.tier]))
        return turn

    def expected_wait_s(self, ticket: Ticket, now: float) -> float:
        """From now on."""
        call = self._calls.get(ticket)
        if call is None or call.started >= 0.0:
            return 0.0
        queue, line = self._queues[call.tier], call.line
        rate = self._tier_rate(call.tier, now)
        if not rate:
            return max(0.0, call.came + self._patience_s(call.ask) - now)
        own = line.backlog / len(line.numbers) * bisect_left(line.numbers, call.number)
        ahead = queue.backlog / queue.waiting * queue.ahead(call)
        return self._turn_s(call.tier, line, own, ahead, rate, now)

    def retry_after_s(self, ask: Ask, now: float, spread: float) -> float:
        """When a caller that is being turned away should come again, in whole seconds. It is a promise, so ask once for each
        such caller. `spread`: random, 0 to 1.
        """
        tier = _INDEX[ask.tier]
        queue, promises = self._queues[tier], self._promises[tier]
        promises.lapse(now)
        line = queue.enter(ask, now)
        told = promises.made_to(line, ask.caller)
        if told is not None and told.due > now + 1.0:  # too early; the time that he was told stands
            return float(math.ceil(told.due - now))
        if told is not None:
            promises.settle(told, 1.0)
        cost, rate = cost_of(ask.prompt_tokens, ask.output_tokens), self._tier_rate(tier, now)
        # Where nothing was measured yet: by then the queue has moved or is empty.
        told_s = self._promised_s(tier, line, cost, rate, now) if rate else self._patience_s(ask) * (1.0 + spread)
        told_s = float(math.ceil(max(told_s, _LEAST_RETRY_S)))
        if told_s < MOST_S:
            promises.make(line, ask.caller, told_s, cost, now)
            return told_s
        return float(math.ceil(MOST_S + (_MOST_RETRY_S - MOST_S) * spread))  # nothing so far off can be promised

    def step(self, now: float) -> Step:
        """Up at once, down one by one."""
        step = self._step_now(now)
        if step >= self._step:
            self._step_at = now
            self._step = step
        elif now >= self._step_at + _STEP_HOLDS_S:
            self._step_at = now
            self._step -= 1
        return _STEPS[self._step]

    def output_cap(self, ask: Ask, now: float) -> int | None:
        """The most output tokens that this call gets as things stand; None: as many as it asks for."""
        if _INDEX[ask.tier] < _FREE:
            return None
        self.step(now)
        return self._rules.free_output_cap_tokens if self._step >= 2 else None

    def prefers_fall_back(self, ask: Ask, now: float) -> bool:
        """Whether this call should go to a model that it names as its fall-back: under pressure, or where it is rejected."""
        self.step(now)
        if self._step == 3:
            return True
        tier = _INDEX[ask.tier]
        line = self._queues[tier].enter(ask, now)
        call = Call(Ticket(0), ask, tier, line, now)
        return not (self._is_next(call, now) and self._fits(call, now)) and not self._may_wait(call, False, now)

    def demand(self, now: float) -> Demand:
        tiers = {
            tier: TierDemand(queue.waiting, queue.waiting_tokens, running, tokens)
            for tier, queue, running, tokens in zip(_TIERS, self._queues, self._running, self._running_tokens, strict=True)
        }
        return Demand(
            tiers=tiers,
            arrivals_per_s=self._arrivals.per_s(now),
            arrival_tokens_per_s=self._arrival_tokens.per_s(now),
            drain_per_s=self._departures.per_s(now),
            drain_tokens_per_s=self._departure_tokens.per_s(now),
            expected_wait_s=self._free_wait_s(now),
            rejected=self._rejected,
            rejections_per_s=self._rejections.per_s(now),
            promised=sum([promises.waiting for promises in self._promises]),
            step=self.step(now),
            capacity=self._capacity,
        )

    # What fits, and who is next

    def _fits(self, call: Call, now: float) -> bool:
        """Into what the replicas hold. A tier that has its share already leaves something for those who have not."""
        capacity = self._capacity
        if capacity.places <= 0:
            return False
        if self._held_calls < (1 if call.tier == _BATCH else max(1, capacity.replicas)):
            return True
        kept = self._kept_free(call.tier, now) if self._share(call.tier, call.tokens, 1) > self._shares[call.tier] else 0
        if self._held_calls + 1 + kept > capacity.places:
            return False
        kept_tokens = kept * self._held_tokens // self._held_calls
        if capacity.tokens and self._held_tokens + call.tokens + kept_tokens > capacity.tokens * _KV_USED:
            return False
        return self._window.has_room(call.ask.prompt_tokens)

    def _share(self, tier: int, tokens: int, calls: int) -> float:
        """Of all there is, what this tier has and so much more: of places or of tokens, whichever is more."""
        capacity = self._capacity
        share = (self._running[tier] + calls) / max(1, capacity.places)
        if capacity.tokens:
            share = max(share, (self._running_tokens[tier] + tokens) / (capacity.tokens * _KV_USED))
        return share

    def _is_beyond(self, call: Call, queue: FairQueue) -> bool:
        """Whether this call is more than its tier's share, as those that wait already are."""
        return self._share(call.tier, queue.waiting_tokens + call.tokens, queue.waiting + 1) > self._shares[call.tier]

    def _kept_free(self, tier: int, now: float) -> int:
        """Places that are kept free for the tiers before this one, so that their calls need not wait until one leaves."""
        if now >= self._reserves_at + _RESERVE_EVERY_S:
            self._reserves_at = now
            self._reserve(now)
        places = self._capacity.places
        kept = int(places * (1.0 - _BATCH_USED)) if tier == _BATCH else 0
        for other in range(min(tier, _FREE)):
            kept += max(0, min(self._reserves[other], int(self._shares[other] * places) - self._running[other]))
        return min(kept, int(places * _RESERVE_SHARE))

    def _reserve(self, now: float) -> None:
        """As many as come of a tier until two calls have left."""
        departures = self._departures.per_s(now)
        for tier in range(_FREE):
            arrivals = self._tier_arrivals[tier].per_s(now)
            self._reserves[tier] = math.ceil(2.0 * arrivals / departures) if departures > 0.0 else 0

    def _is_next(self, call: Call, now: float) -> bool:
        """Nobody waits whose turn comes before. Those of other tiers who wait could not start, or had to leave a place."""
        tier = call.tier
        if not self._waiting:
            return True
        if self._queues[tier].waiting or tier == _BATCH:
            return False
        ratio = self._share(tier, 0, 0) / self._shares[tier]
        for other in range(_BATCH):
            if self._queues[other].waiting and self._share(other, 0, 0) / self._shares[other] < min(1.0, ratio):
                return False
        return True

    def _next_call(self, now: float) -> Call | None:
        """The call whose turn it is, if it fits: of the tier that has least of its share. None of batch while others wait."""
        turns = [(self._share(tier, 0, 0) / self._shares[tier], tier) for tier in range(_BATCH) if self._queues[tier].waiting]
        for ratio, tier in sorted(turns):
            call = self._queues[tier].head()
            if self._fits(call, now):
                return call
            if ratio < 1.0:  # it is kept a place until there is one
                return None
        if turns or not self._queues[_BATCH].waiting:
            return None
        call = self._queues[_BATCH].head()
        return call if self._fits(call, now) else None

    def _start(self, now: float) -> list[Ticket]:
        started: list[Ticket] = []
        if self._waiting:
            self._window.forget(now)
        while self._waiting:
            call = self._next_call(now)
            if call is None:
                break
            self._queues[call.tier].remove(call)
            self._waiting -= 1
            self._begin(call, now)
            started.append(call.ticket)
        if self._waiting == self._queues[_BATCH].waiting:
            self._pressed_since = math.inf
        return started

    def _begin(self, call: Call, now: float) -> None:
        tier = call.tier
        self._pass(now)
        self._queues[tier].start(call, now)
        call.started = now
        self._running[tier] += 1
        self._running_tokens[tier] += call.tokens
        self._held_calls += 1
        self._held_tokens += call.tokens
        self._held_cost += call.cost
        self._window.sent(call, now)

    def _give_back(self, call: Call, now: float) -> None:
        call.line.running -= 1
        self._running[call.tier] -= 1
        self._running_tokens[call.tier] -= call.tokens
        self._held_calls -= 1
        self._held_tokens -= call.tokens
        self._held_cost = self._held_cost - call.cost if self._held_calls else 0.0
        self._window.gone(call)
        self._drain.left(call.cost)
        self._departures.add(1.0, now)

    def _pass(self, now: float) -> None:
        """Called before what runs changes."""
        capacity = self._capacity
        is_full = self._held_calls >= _FULL * capacity.places
        if not is_full and capacity.tokens:
            is_full = self._held_tokens >= _FULL * _KV_USED * capacity.tokens
        self._drain.passed(self._held_calls, self._held_tokens, is_full, now)

    # Who may wait, and how long it will

    def _patience_s(self, ask: Ask) -> float:
        if ask.tier is Tier.BATCH:
            patience_s = self._rules.batch_s
        else:
            patience_s = self._rules.busy_s if self._capacity.places else self._rules.cold_s
        return patience_s if ask.patience_s is None else min(patience_s, ask.patience_s)

    def _may_wait(self, call: Call, returned: bool, now: float) -> bool:
        room = int(self._rules.most_waiting * _ROOM_USED[call.tier]) - self._waiting
        queue, ask = self._queues[call.tier], call.ask
        # A dynamic threshold (Choudhury and Hahne, 1998): whoever queues most leaves as much room for those who come after.
        if room <= 0 or (not returned and len(call.line.numbers) >= room):
            return False
        most_s = self._patience_s(ask)
        if call.tier < _FREE and ask.patience_s is None and self._capacity.places > 0 and self._is_beyond(call, queue):
            most_s = min(most_s, self._rules.prompt_s)
        return self._starts_within(most_s, call, returned, now)

    def _tier_rate(self, tier: int, now: float) -> float:
        """The cost a second at which this tier's calls start while some of them wait: what the others do not use of all there
        is, and its share at least. 0: not known yet.
        """
        capacity = self._capacity
        if self._waiting:
            self._pass(now)
        rate = self._drain.per_s(capacity.places, capacity.tokens * _KV_USED, self._typical())
        others, shares = 0.0, self._shares[tier]
        for other in range(_BATCH):
            if other != tier:
                others += self._queues[other].usage.per_s(now)
                if self._queues[other].waiting:
                    shares += self._shares[other]
        if tier == _BATCH:
            return max(rate * _BATCH_USED - others, rate * 0.02)
        return max(rate - others, rate * self._shares[tier] / shares)

    def _starts_within(self, most_s: float, call: Call, returned: bool, now: float) -> bool:
        """Whether a call that comes now would. Those who were told to come before its turn are ahead of it; so more of them
        are, the later that is.
        """
        queue, line, rate = self._queues[call.tier], call.line, self._tier_rate(call.tier, now)
        if not rate:
            return True
        if returned:
            return self._turn_s(call.tier, line, line.returned, queue.returned, rate, now) <= most_s
        kept, before_s = self._promises[call.tier].kept_share, 0.0
        for _ in range(_GUESSES):
            own = line.backlog + line.promised_before(now + before_s) * kept
            ahead = queue.backlog + queue.promised_before(now + before_s) * kept
            wait_s = self._turn_s(call.tier, line, own, ahead, rate, now)
            if wait_s > most_s:
                return False
            if wait_s <= before_s:
                return True
            before_s = wait_s
        return False

    def _wait_s(self, tier: int, line: Line, now: float) -> float:
        """Of a call that comes now, behind all who wait or were told to come again. 0: not known."""
        rate = self._tier_rate(tier, now)
        if not rate:
            return 0.0
        queue, kept = self._queues[tier], self._promises[tier].kept_share
        own, ahead = line.backlog + line.promised * kept, queue.backlog + queue.promised * kept
        return self._turn_s(tier, line, own, ahead, rate, now)

    def _promised_s(self, tier: int, line: Line, cost: float, rate: float, now: float) -> float:
        """The first time behind all who wait that is not promised to anybody; but a tenant that others have pushed back to more
        than twice what its fair share takes gets that, promised or not.
        """
        queue, promises = self._queues[tier], self._promises[tier]
        earliest_s = self._turn_s(tier, line, line.backlog, queue.backlog, rate, now)
        own = line.backlog + line.promised * promises.kept_share + queue.debt(line)
        fair_s = self._fair(queue, line, own) / (rate * BOOKED)
        free_s = float(promises.free_s(earliest_s, cost, rate, now))
        return free_s if free_s < 2.0 * fair_s else max(earliest_s, fair_s)

    def _turn_s(self, tier: int, line: Line, own: float, ahead: float, rate: float, now: float) -> float:
        """Until a call starts that so much of its own tenant's cost is before, and of all of its tier's if no others come.

        Not longer than the tenant's fair share takes, which nobody can take away. Below that, as if tenants with less waiting
        went on as they do.
        """
        queue = self._queues[tier]
        own += queue.debt(line)
        rest = rate - queue.usage.per_s(now) + line.usage.per_s(now)
        flow = own * rate / rest if rest > 0.0 else math.inf if own else 0.0
        return (min(self._fair(queue, line, own), max(ahead, flow)) + self._typical()) / rate

    def _fair(self, queue: FairQueue, line: Line, own: float) -> float:
        """Cost of the tier that is served before a call with so much of its own tenant's before it: while that is, the others
        are served by weight, and they may have one call each that comes first.
        """
        return own * queue.weights(line) / line.weight + self._typical() * queue.others(line)

    def _typical(self) -> float:
        return self._held_cost / self._held_calls if self._held_calls else 0.0

    def _free_wait_s(self, now: float) -> float:
        queue, rate = self._queues[_FREE], self._tier_rate(_FREE, now)
        return (queue.backlog + queue.promised * self._promises[_FREE].kept_share) / rate if rate else 0.0

    def _step_now(self, now: float) -> int:
        if now < self._rejected_at + _REJECTING_S:
            return 4
        if not self._waiting:
            return 0
        if now - self._pressed_since >= _SUSTAINED_S:
            share = self._free_wait_s(now) / self._rules.busy_s
            if share >= 0.25:
                return 3 if share >= 0.5 else 2
        return 1
