"""What runs, and what else fits: places and KV cache of the ready replicas, and the window of what they have not answered.

Tiers have guaranteed shares of it (of places or of tokens, whichever they have more of, as in Ghodsi et al., "Dominant Resource
Fairness", NSDI 2011). What a tier leaves idle the others may have, but whoever has more than its share leaves a few places free
for those who have less, so that their calls start at once instead of waiting until one of the running ones ends. The same
holds between the tenants of a tier.
"""

from __future__ import annotations

import math

from gateway.policy.answer_window import AnswerWindow
from gateway.policy.ask import TIERS, Capacity, Rules
from gateway.policy.drain import Pace
from gateway.policy.fair_queue import Call, FairQueue

FREE, BATCH = 2, 3
KV_USED = 0.95  # of the cache; the rest is for what estimates were wrong by
_FULL = 0.8  # of the places or tokens: from then on the replicas count as full
_BATCH_LEAVES = 0.1  # of the places: batch has what is idle, and whoever comes next shall find one
_BATCH_SHARE = 1e-9
_BATCH_READS, _LEAVING_READ = 0.5, 0.4  # of the window, of batch calls, which start while nobody waits, and of who leaves places
_GENEROUS = 1.5  # times its part a tenant may have before it leaves places for the others
_FOR_TENANTS = 2  # places that it leaves them
_NEARLY = 0.9
_TURNS = 3
_KEPT_EVERY_S, _MOST_KEPT = 0.25, 1.0 / 8.0  # how often the places kept free are counted anew, and of all places
_DEPARTURES = 2.0  # as many calls as come of those who have less until so many have left
_RATE_MEMORY_S = 10.0


class Holding:
    def __init__(self, rules: Rules) -> None:
        self.capacity = Capacity(0)
        self.calls = 0
        self.tokens = 0
        self.running = [0] * len(TIERS)
        self.running_tokens = [0] * len(TIERS)
        self.shares = [rules.reserved_share, rules.paid_share, rules.free_share, _BATCH_SHARE]
        self.window = AnswerWindow(rules.target_first_token_s)
        self.arrivals = [Pace(_RATE_MEMORY_S) for _ in TIERS]
        self.departures = Pace(_RATE_MEMORY_S)
        self._cost = 0.0
        self._kept = [0] * len(TIERS)
        self._kept_at = -math.inf

    def resize(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.window.resize(capacity.replicas)

    def begin(self, call: Call, now: float) -> None:
        call.started = now
        self._hold(call, 1)
        self.window.sent(call, now)

    def end(self, call: Call, now: float) -> None:
        self._hold(call, -1)
        self.window.gone(call)
        self.departures.add(1.0, now)

    def _hold(self, call: Call, one: int) -> None:
        self.calls += one
        self.tokens += one * call.tokens
        self.running[call.tier] += one
        self.running_tokens[call.tier] += one * call.tokens
        self._cost = self._cost + one * call.cost if self.calls else 0.0

    @property
    def typical_cost(self) -> float:
        """Of a running call."""
        return self._cost / self.calls if self.calls else 0.0

    @property
    def is_full(self) -> bool:
        capacity = self.capacity
        if self.calls >= _FULL * capacity.places:
            return True
        return capacity.tokens > 0 and self.tokens >= _FULL * KV_USED * capacity.tokens

    def share(self, tier: int, tokens: int = 0, calls: int = 0) -> float:
        """Of all there is, what this tier has and so much more."""
        capacity = self.capacity
        share = (self.running[tier] + calls) / max(1, capacity.places)
        if capacity.tokens:
            share = max(share, (self.running_tokens[tier] + tokens) / (capacity.tokens * KV_USED))
        return share

    def use(self, tier: int) -> float:
        """Of its guaranteed share."""
        return self.share(tier) / self.shares[tier]

    def turn(self, tier: int) -> float:
        """The tier with the least is next. Those with less than their share come before the others and divide by it what the
        engines read, so that none of them waits until another has caught up in what it holds.
        """
        use = self.use(tier)
        return use if use >= 1.0 else -1.0 / (1.0 + self.window.unanswered[tier] / self.shares[tier])

    @property
    def has_any_room(self) -> bool:
        """Without it, no call fits, whoever comes."""
        if self.calls < self.capacity.replicas:
            return self.capacity.places > 0
        return self.calls < self.capacity.places and self.window.has_room(1)

    def fits(self, call: Call, queue: FairQueue, now: float) -> bool:
        return self.fits_beside(call, self.kept_for_others(call, queue, now))

    def fits_beside(self, call: Call, kept: int) -> bool:
        """With so many places left free for others."""
        capacity = self.capacity
        if capacity.places <= 0:
            return False
        if self.calls < (1 if call.tier == BATCH else max(1, capacity.replicas)):
            return True
        if self.calls + 1 + kept > capacity.places:
            return False
        kept_tokens = kept * self.tokens // self.calls
        if capacity.tokens and self.tokens + call.tokens + kept_tokens > capacity.tokens * KV_USED:
            return False
        part = 1.0 if not kept else _BATCH_READS if call.tier == BATCH else _LEAVING_READ
        return self.window.has_room(call.ask.prompt_tokens, part)

    def is_slow_to_answer(self, call: Call, queue: FairQueue, most_s: float, now: float) -> bool:
        """Whether the engines are not done reading, and will not be soon enough for one more: of this tier as often as of the
        others, and of its tenant as often as of the tier's others.
        """
        prompt_tokens, line = call.ask.prompt_tokens, call.line
        if self.window.would_hold(queue.waiting_prompt_tokens + prompt_tokens):
            return False
        before = float(queue.waiting_prompt_tokens)
        if line.numbers:
            before *= max(1.0, len(line.numbers) / queue.waiting * queue.weights(line) / line.weight)
        return self.window.wait_s(_TURNS * (before + prompt_tokens), now) > most_s

    def is_beyond(self, call: Call, queue: FairQueue) -> bool:
        """Whether this call, behind those that wait, is more than its tier's share, or nearly: calls end by ones and twos."""
        tier = call.tier
        return self.share(tier, queue.waiting_tokens + call.tokens, queue.waiting + 1) > _NEARLY * self.shares[tier]

    def _part(self, call: Call, queue: FairQueue, more: int) -> float:
        """What a tenant has and so much more, of its part by weight of its tier's places, or of those that the tier has if that
        is more.
        """
        line, tier = call.line, call.tier
        places = max(self.shares[tier] * self.capacity.places, self.running[tier])
        return (line.running + more) / max(1.0, places * line.weight / queue.busy_weights(line))

    def kept_for_others(self, call: Call, queue: FairQueue, now: float) -> int:
        """Places that this call has to leave free, because others have less of their share."""
        if now >= self._kept_at + _KEPT_EVERY_S:
            self._kept_at = now
            self._count_kept(now)
        tier, places, kept = call.tier, self.capacity.places, 0
        if self.share(tier, call.tokens, 1) > self.shares[tier]:
            for other in range(min(tier, FREE)):
                kept += max(0, min(self._kept[other], int(self.shares[other] * places) - self.running[other]))
        if tier == BATCH:
            kept += int(places * _BATCH_LEAVES)
        elif kept < _FOR_TENANTS and (call.number >= 0 or not call.ask.caller) and self._part(call, queue, 1) > _GENEROUS:
            kept = min(_FOR_TENANTS, self._kept[tier])
        return min(kept, int(places * _MOST_KEPT))

    def _count_kept(self, now: float) -> None:
        departures = self.departures.per_s(now)
        for tier in range(BATCH):
            come = self.arrivals[tier].per_s(now) / departures if departures > 0.0 else 0.0
            self._kept[tier] = math.ceil(_DEPARTURES * come)
