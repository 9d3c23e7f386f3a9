"""May this call start now, wait, or go away? One waiting room a model.

The facts come in with the time; nothing here waits. `gateway.adapters.asyncio_gate` does the waiting.

States of a ticket: *running* (has a place), *waiting*, or gone. Rejected: turned away before the queue. Evicted: out of it.

Each file beside this one answers one question: what fits (`holding`, `answer_window`), who is next within a tier (`fair_queue`),
when that will be (`outlook`, `drain`), what the others are told (`promise`), and what else is done about it (`ladder`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum

from gateway.policy.ask import TIERS, Ask, Capacity, Rules, Ticket, cost_of
from gateway.policy.demand import Demand, Step, TierDemand
from gateway.policy.drain import Pace
from gateway.policy.fair_queue import Call, FairQueue
from gateway.policy.holding import BATCH, FREE, Holding
from gateway.policy.ladder import Ladder
from gateway.policy.limits import Tier
from gateway.policy.outlook import Outlook
from gateway.policy.promise import MOST_S, Promises

__all__ = ["Ask", "Capacity", "Decision", "Demand", "Rules", "Step", "Ticket", "TierDemand", "WaitingRoom"]

_NUMBER = {tier: number for number, tier in enumerate(TIERS)}
_RATE_MEMORY_S = 10.0
_ROOM_USED = (1.0, 1.0, 7.0 / 8.0, 3.0 / 4.0)  # by tier: free and batch calls leave room to wait for those before them
_FEW = 2.5  # places to get free, for which a prompt call within its tier's share may wait
_NOT_FOR_RETURNED = 16  # of the room: those who come as told may not fill it either
_LEAST_RETRY_S, _MOST_RETRY_S = 1.0, 720.0
_LEAST_TOLD = 1.0 / 6.0  # of the patience


class Decision(Enum):
    START = "start"
    WAIT = "wait"
    REJECT = "reject"


class WaitingRoom:
    """One model's waiting and running calls.

    Invariants: what runs never grows beyond the capacity; as long as anybody waits, the replicas have at least one call each.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._calls: dict[Ticket, Call] = {}
        self._waiting = 0
        self._rejected = 0
        self._queues = [FairQueue() for _ in TIERS]
        self._promises = [Promises(queue) for queue in self._queues]
        self._holding = Holding(rules)
        self._outlook = Outlook(self._holding, self._queues, self._promises)
        self._ladder = Ladder()
        self._arrivals, self._arrival_tokens = Pace(_RATE_MEMORY_S), Pace(_RATE_MEMORY_S)
        self._departure_tokens, self._rejections = Pace(_RATE_MEMORY_S), Pace(_RATE_MEMORY_S)

    @property
    def running(self) -> int:
        return self._holding.calls

    @property
    def waiting(self) -> int:
        return self._waiting

    def arrive(self, ticket: Ticket, ask: Ask, now: float) -> Decision:
        tier = _NUMBER[ask.tier]
        queue = self._queues[tier]
        call = Call(ticket, ask, tier, queue.enter(ask, now), now)
        self._arrivals.add(1.0, now)
        self._arrival_tokens.add(call.tokens, now)
        self._holding.arrivals[tier].add(1.0, now)
        returned = self._promises[tier].take_up(call.line, ask.caller, now)
        if self._may_start(call, now):
            self._calls[ticket] = call
            self._begin(call, now)
            return Decision.START
        if not self._may_wait(call, returned, now):
            self._rejected += 1
            self._rejections.add(1.0, now)
            self._ladder.rejected(now)
            return Decision.REJECT
        self._calls[ticket] = call
        # Who hardly waits at all is not passed over by those who were told to come: they hardly do either.
        queue.add(call, returned and not self._is_prompt(ask))
        self._waiting += 1
        self._press(now)
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
        self._outlook.passed(now)
        self._outlook.left(call)
        self._holding.end(call, now)
        queue.end(call.line)
        if used is not None:
            queue.charge(call.line, cost_of(used[0], used[1]) - call.cost)
            self._departure_tokens.add(used[0] + used[1], now)
        return self._start(now)

    def first_token(self, ticket: Ticket, took_s: float, now: float) -> list[Ticket]:
        """The engine has begun to answer, `took_s` after it was sent the call: for calls that stream. Returns the tickets that
        start now.
        """
        call = self._calls.get(ticket)
        if call is None or call.started < 0.0 or call.answered_at >= 0.0:
            return []
        call.answered_at = now
        self._holding.window.answered(call, took_s, now)
        return self._start(now)

    @property
    def wants_progress(self) -> bool:
        """Few calls have left yet, so what the running ones have generated would say how fast the replicas are."""
        return self._outlook.wants_progress

    def progress(self, generated: Mapping[Ticket, int | None], now: float) -> None:
        """Tokens that running calls have generated so far; None: not known."""
        running = [(self._calls[ticket], tokens) for ticket, tokens in generated.items() if ticket in self._calls]
        self._outlook.progress([(call, tokens) for call, tokens in running if call.started >= 0.0], now)

    def resize(self, capacity: Capacity, now: float) -> list[Ticket]:
        """The fleet has changed, or time has passed. Running calls stay; returns the tickets that start now."""
        self._outlook.passed(now)
        self._holding.resize(capacity)
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
        turn, shares = self._queues[call.tier].ahead(call) + 1, self._holding.shares
        if call.tier == BATCH:
            return turn + self._waiting - self._queues[BATCH].waiting
        others = [tier for tier in range(BATCH) if tier != call.tier]
        return turn + sum([min(self._queues[tier].waiting, int(turn * shares[tier] / shares[call.tier])) for tier in others])

    def expected_wait_s(self, ticket: Ticket, now: float) -> float:
        """From now on; where nothing was measured yet, what is left of the patience."""
        call = self._calls.get(ticket)
        if call is None or call.started >= 0.0:
            return 0.0
        wait_s = self._outlook.wait_s(call, now)
        return max(0.0, call.came + self._patience_s(call.ask) - now) if wait_s is None else wait_s

    def retry_after_s(self, ask: Ask, now: float, spread: float) -> float:
        """When a caller that is being turned away should come again, in whole seconds. It is a promise, so ask once for each
        such caller. `spread`: random, 0 to 1.
        """
        tier = _NUMBER[ask.tier]
        queue, promises = self._queues[tier], self._promises[tier]
        promises.lapse(now)
        line = queue.enter(ask, now)
        told = promises.made_to(line, ask.caller)
        if told is not None and told.due > now + 1.0:  # too early; the time that he was told stands
            return float(math.ceil(told.due - now))
        if told is not None:
            promises.settle(told, 1.0)
        cost = cost_of(ask.prompt_tokens, ask.output_tokens)
        told_s = self._outlook.promised_s(tier, line, cost, self._least_told_s(ask), now)
        if told_s is None:  # nothing was measured yet: by then the queue has moved or is empty
            rules, would_wait_s = self._rules, self._patience_s(ask)
            told_s = (max(rules.prompt_s, rules.target_first_token_s) if self._is_prompt(ask) else would_wait_s) * (1.0 + spread)
        told_s = float(math.ceil(max(told_s, _LEAST_RETRY_S)))
        if told_s < MOST_S:
            promises.make(line, ask.caller, told_s, cost, now)
            return told_s
        return float(math.ceil(MOST_S + (_MOST_RETRY_S - MOST_S) * spread))  # nothing so far off can be promised

    def step(self, now: float) -> Step:
        return self._ladder.step(self._waiting > 0, self._outlook.backlog_s(FREE, now) / self._rules.busy_s, now)

    def output_cap(self, ask: Ask, now: float) -> int | None:
        """The most output tokens that this call gets as things stand; None: as many as it asks for."""
        if _NUMBER[ask.tier] < FREE or self.step(now) in (Step.NONE, Step.BATCH_WAITS):
            return None
        return self._rules.free_output_cap_tokens

    def prefers_fall_back(self, ask: Ask, now: float) -> bool:
        """Whether this call should go to a model that it names as its fall-back: under pressure, or where it is rejected."""
        if self.step(now) is Step.FALL_BACK:
            return True
        tier = _NUMBER[ask.tier]
        call = Call(Ticket(0), ask, tier, self._queues[tier].enter(ask, now), now)
        return not self._may_start(call, now) and not self._may_wait(call, False, now)

    def demand(self, now: float) -> Demand:
        holding = self._holding
        tiers = {
            tier: TierDemand(queue.waiting, queue.waiting_tokens, running, tokens)
            for tier, queue, running, tokens in zip(TIERS, self._queues, holding.running, holding.running_tokens, strict=True)
        }
        return Demand(
            tiers=tiers,
            arrivals_per_s=self._arrivals.per_s(now),
            arrival_tokens_per_s=self._arrival_tokens.per_s(now),
            drain_per_s=holding.departures.per_s(now),
            drain_tokens_per_s=self._departure_tokens.per_s(now),
            expected_wait_s=self._outlook.backlog_s(FREE, now),
            rejected=self._rejected,
            rejections_per_s=self._rejections.per_s(now),
            promised=sum([promises.waiting for promises in self._promises]),
            step=self.step(now),
            capacity=holding.capacity,
        )

    def _may_start(self, call: Call, now: float) -> bool:
        """Whether it fits and nobody waits whose turn comes before. Those who wait cannot start; but if that is for want of room
        and not because they have to leave some, whoever has used less of its share must not be overtaken.
        """
        queue, holding = self._queues[call.tier], self._holding
        if not holding.has_any_room:
            return False
        if self._waiting:
            if call.line.numbers or (call.tier == BATCH and self._waiting > queue.waiting):
                return False
            if queue.waiting and not holding.kept_for_others(next(queue.turns()), queue, now):
                return False
            turn = min(0.0, holding.turn(call.tier))
            for tier in range(BATCH):
                if tier != call.tier and self._queues[tier].waiting and holding.turn(tier) < turn:
                    return False
        return holding.fits(call, queue, now)

    def _next_call(self, now: float) -> Call | None:
        """The call whose turn it is, if it fits: of the tier that has least of its share. None of batch while others wait."""
        if not self._holding.has_any_room:
            return None
        turns = [(self._holding.turn(tier), tier) for tier in range(BATCH) if self._queues[tier].waiting]
        for _, tier in sorted(turns) or [(0.0, BATCH)]:
            queue = self._queues[tier]
            for call in queue.turns():
                kept = self._holding.kept_for_others(call, queue, now)
                if self._holding.fits_beside(call, kept):
                    return call
                if not kept:  # there is no room at all: it is the next to get some
                    return None
        return None

    def _start(self, now: float) -> list[Ticket]:
        started: list[Ticket] = []
        if self._waiting:
            self._holding.window.forget(now)
        while self._waiting:
            call = self._next_call(now)
            if call is None:
                break
            self._queues[call.tier].remove(call)
            self._waiting -= 1
            self._begin(call, now)
            started.append(call.ticket)
        self._press(now)
        return started

    def _begin(self, call: Call, now: float) -> None:
        self._outlook.passed(now)
        self._queues[call.tier].start(call, now)
        self._holding.begin(call, now)

    def _press(self, now: float) -> None:
        self._ladder.press(self._waiting > self._queues[BATCH].waiting, now)

    def _patience_s(self, ask: Ask) -> float:
        if ask.tier is Tier.BATCH:
            patience_s = self._rules.batch_s
        else:
            patience_s = self._rules.busy_s if self._holding.capacity.places else self._rules.cold_s
        return patience_s if ask.patience_s is None else min(patience_s, ask.patience_s)

    def _is_prompt(self, ask: Ask) -> bool:
        """Whether a paid call would rather be told at once than wait: by the operator's setting, if it does not say itself."""
        rules = self._rules
        if _NUMBER[ask.tier] >= FREE:
            return False
        return rules.prompt_s < rules.busy_s and ask.patience_s is None and self._holding.capacity.places > 0

    def _least_told_s(self, ask: Ask) -> float:
        """Who would have waited is not told to come in much less: so near, a second more or less would make it untrue."""
        if self._is_prompt(ask):
            return 0.0
        return _LEAST_TOLD * min(self._patience_s(ask), self._rules.busy_s)

    def _may_wait(self, call: Call, returned: bool, now: float) -> bool:
        room = int(self._rules.most_waiting * _ROOM_USED[call.tier]) - self._waiting
        # A dynamic threshold (Choudhury and Hahne, 1998): whoever queues most leaves as much room for those who come after.
        taken = len(call.line.numbers) if not returned else self._rules.most_waiting // _NOT_FOR_RETURNED
        if room <= 0 or taken >= room:
            return False
        ask, most_s = call.ask, self._patience_s(call.ask)
        if most_s <= 0.0:
            return False
        is_prompt = self._is_prompt(ask)
        queue, holding = self._queues[call.tier], self._holding
        if is_prompt and holding.is_slow_to_answer(call, queue, 2.0 * self._rules.target_first_token_s, now):
            return False
        if is_prompt and holding.is_beyond(call, queue):
            most_s = min(most_s, self._rules.prompt_s)
        elif is_prompt:  # where calls seldom end, some have to wait for that, or the share would stay unused
            few_s = _FEW * self._outlook.place_s(call.tier, now)
            most_s = min(most_s, max(few_s, self._rules.target_first_token_s / 4.0))
        return self._outlook.starts_within(most_s, call, returned, now)
