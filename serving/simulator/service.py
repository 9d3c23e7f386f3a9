"""One model in virtual time: its waiting room, its router and the replicas that are ready for calls. The gateway's own
`WaitingRoom` and `Router` decide; this does around them what the gateway's shell does (`asyncio_gate`, `exchange`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from random import Random

from engines.model import CallTooLong, Event, Happening
from gateway.policy.admission import Ask, Capacity, Decision, Rules, Ticket, WaitingRoom
from gateway.policy.routing import Pressure, Router, Work
from serving.simulator.agenda import Agenda
from serving.simulator.purse import Purses
from serving.simulator.replica import Call, Life, Replica
from serving.simulator.result import Calls, End

_BEAT_S = 2.0  # how often the waiting room looks at the time, while anybody waits
_HEAR_S, _HEAR_CALM_S = 0.5, 5.0  # between two looks at how far the running calls are; of many, while nobody waits
_MANY = 100
_TELL_S = 5.0  # how often the engines tell of their KV caches
_LOOK_S = 2.0  # how often the router looks at what changes slowly: a gateway's does four times a second, which costs much here
_WORTH_TELLING = 0.4  # of a KV cache in use: with less, no router holds it against a replica
_FIRST, _FINISHED = Happening.FIRST, Happening.FINISHED


class Tally:
    """In all, since the beginning."""

    __slots__ = ("came", "evicted", "failed", "over_limit", "served", "tokens", "turned_away")

    def __init__(self) -> None:
        self.came = self.turned_away = self.evicted = self.over_limit = self.failed = self.served = 0
        self.tokens = 0.0


class Service:
    """`emptied` is told of a replica that drains and has answered its last call."""

    def __init__(
        self,
        model: str,
        rules: Rules,
        agenda: Agenda,
        purses: Purses,
        calls: Calls,
        random: Random,
        emptied: Callable[[Replica], None],
    ) -> None:
        self.model = model
        self.room = WaitingRoom(rules)
        self.tally = Tally()
        self.ready: list[Replica] = []  # never changed, always replaced: the router knows it by its identity
        self.starting = 0
        self.places = 0
        self.preemptions = 0
        self._rules = rules
        self._agenda = agenda
        self._purses = purses
        self._calls = calls
        self._random = random
        self._emptied = emptied
        self._router: Router[Replica] = Router()
        self._waiting: dict[Ticket, Call] = {}
        self._running: dict[Ticket, Call] = {}
        self._resuming: deque[Call] = deque()
        self._capacity = Capacity(0, replicas=0)
        self._tickets = 0
        self._beats = False
        self._heard = -math.inf
        agenda.at(_TELL_S, self._tell_pressures)

    # Calls

    def come(self, call: Call) -> None:
        """For the first time, or again as told."""
        now, visit, rows = self._agenda.now, call.visit, self._calls
        rows.last_came[call.row] = now
        taken = self._purses.take(visit.tenant, visit.prompt_tokens + visit.expected_tokens, now)
        if isinstance(taken, float):
            self.tally.over_limit += 1
            self._turned_away(call, taken)
            return
        call.taken = taken
        room, expected = self.room, visit.expected_tokens
        self._hear()
        ask = Ask(visit.tenant, visit.tier, visit.prompt_tokens, expected, visit.weight, visit.patience_s, call.name)
        cap = room.output_cap(ask, now)
        call.output_tokens = visit.output_tokens
        if cap is not None:
            call.output_tokens = min(cap, call.output_tokens)
            ask = Ask(
                visit.tenant, visit.tier, visit.prompt_tokens, min(cap, expected), visit.weight, visit.patience_s, call.name
            )
        call.ask = ask
        self._tickets += 1
        call.ticket = ticket = Ticket(self._tickets)
        decision = room.arrive(ticket, ask, now)
        if decision is Decision.START:
            self._begin(call)
        elif decision is Decision.WAIT:
            self._waiting[ticket] = call
            self._agenda.at(now + room.patience_s(ticket), self._look_at_patience, call)
            self._beat_soon()
        else:
            self._reject(call)

    def _reject(self, call: Call) -> None:
        self.tally.turned_away += 1
        self._hear()
        told_s = self.room.retry_after_s(call.ask, self._agenda.now, self._random.random())
        self._give_back(call)
        self._turned_away(call, told_s)

    def _turned_away(self, call: Call, told_s: float) -> None:
        row, rows = call.row, self._calls
        rows.turned[row] += 1
        rows.told_s[row] = told_s
        if not call.visit.comes_again or told_s == math.inf:
            rows.end[row], rows.ended[row] = End.TURNED_AWAY, self._agenda.now
        else:
            self._agenda.at(self._agenda.now + told_s, self.come, call)

    def _look_at_patience(self, call: Call) -> None:
        """It is read anew when it runs out, since the fleet may have changed; while it lasts, it is not cut."""
        ticket = call.ticket
        if self._waiting.get(ticket) is not call:
            return
        runs_out = self._calls.last_came[call.row] + self.room.patience_s(ticket)
        if runs_out > self._agenda.now:
            self._agenda.at(runs_out, self._look_at_patience, call)
            return
        del self._waiting[ticket]
        self.tally.evicted += 1
        self._reject(call)
        self._start(self.room.leave(ticket, self._agenda.now))

    def _begin(self, call: Call) -> None:
        """It has a place."""
        self._running[call.ticket] = call
        call.began_at = self._calls.started[call.row] = self._agenda.now
        visit = call.visit
        call.work = Work(b"", visit.prompt_tokens + call.ask.output_tokens)
        try:
            self._send(call)
        except CallTooLong:
            self._fail(call)

    def _start(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            self._begin(self._waiting.pop(ticket))
        if self._resuming:
            self._resume()

    def _send(self, call: Call) -> None:
        """To the replica that the router picks. Raises CallTooLong."""
        now, router = self._agenda.now, self._router
        looked_at = now - now % _LOOK_S
        replica = router.pick(call.work, self.ready, looked_at)
        if replica is None:  # the only one has just been lost
            self._resuming.append(call)
            return
        call.id = str(call.ticket)
        replica.engine.add(call.id, call.visit.prompt_tokens + call.produced, call.output_tokens - call.produced, now)
        call.flight = router.began(replica.id, call.work, looked_at)
        call.replica, call.sent_at = replica, now
        replica.calls[call.id] = call
        self._schedule(replica)

    def _fail(self, call: Call) -> None:
        now, row = self._agenda.now, call.row
        self.tally.failed += 1
        self._calls.end[row], self._calls.ended[row] = End.FAILED, now
        self._give_back(call)
        del self._running[call.ticket]
        self._start(self.room.leave(call.ticket, now))

    def _give_back(self, call: Call) -> None:
        if call.taken is not None:
            call.taken.settle(0, 0, 0)

    # Engines

    def _schedule(self, replica: Replica) -> None:
        """Look at the engine when something happens next. What is due now anyway finds out all that happened until now."""
        at = replica.engine.next_event_at()
        if replica.due <= self._agenda.now:
            return
        if at is None:
            replica.due = math.inf
        elif at != replica.due:
            replica.due = at
            self._agenda.at(at, self._engine_moves, replica)

    def _engine_moves(self, replica: Replica) -> None:
        now = self._agenda.now
        if replica.due != now:  # something came in between
            return
        replica.due = math.inf
        for event in replica.engine.advance(now):
            self._happened(replica, event)
        self._schedule(replica)

    def _happened(self, replica: Replica, event: Event) -> None:
        call, at = replica.calls[event.call_id], event.at
        row, rows = call.row, self._calls
        if event.what is _FIRST:
            self._router.first_token(call.flight, at)
            if not call.produced:
                rows.first[row] = at
                self._start(self.room.first_token(call.ticket, at - call.sent_at, at))
        elif event.what is _FINISHED:
            del replica.calls[event.call_id], self._running[call.ticket]
            visit, tokens = call.visit, call.output_tokens
            rows.end[row], rows.ended[row], rows.output_tokens[row] = End.SERVED, at, tokens
            self.tally.served += 1
            self.tally.tokens += visit.prompt_tokens + tokens
            self._router.ended(call.flight, tokens - call.produced, at)
            if call.taken is not None:
                call.taken.settle(1, visit.prompt_tokens + tokens, 0)
                self._purses.lasted(visit.tenant, at - call.began_at)
            self._start(self.room.leave(call.ticket, at, (visit.prompt_tokens, tokens)))
            if replica.life is Life.DRAINING and not replica.calls:
                self._emptied(replica)
        else:
            self.preemptions += 1

    # Replicas

    def add(self, replica: Replica) -> None:
        """It is ready now."""
        self.ready = [*self.ready, replica]
        self.resize()

    def remove(self, replica: Replica) -> None:
        """It gets no new calls; those that it has go on."""
        if replica in self.ready:
            self.ready = [one for one in self.ready if one is not replica]
            self.resize()

    def lose(self, replica: Replica) -> None:
        """It is gone, with its calls in the middle of their answers: they go on elsewhere from what they have."""
        now = self._agenda.now
        self.remove(replica)
        for event in replica.engine.advance(now):
            self._happened(replica, event)
        broken, replica.calls = replica.calls, {}
        replica.due = math.inf
        for id_, call in broken.items():
            got = replica.engine.tokens_of(id_)
            call.produced += got
            self._router.ended(call.flight, 0, now)
            call.replica = None
            self._calls.resumed[call.row] += 1
            call.runs_out = now + (self._rules.busy_s if self._capacity.places else self._rules.cold_s)
            self._resuming.append(call)
            self._agenda.at(call.runs_out, self._look_at_resuming, call)
        self._router.forget({one.id for one in self.ready})
        self._resume()

    def _resume(self) -> None:
        """Whoever goes on elsewhere does so as soon as no more calls are under way than there is room for, this one included."""
        while self._resuming and self.ready and self.room.running - len(self._resuming) < self.places:
            self._send(self._resuming.popleft())

    def _look_at_resuming(self, call: Call) -> None:
        if call in self._resuming and call.runs_out <= self._agenda.now:
            self._resuming.remove(call)
            self._fail(call)

    def resize(self) -> None:
        """The waiting room hears what the replicas hold, and how many are on their way."""
        self.places = sum(replica.places for replica in self.ready)
        tokens = sum(replica.figures.kv_tokens for replica in self.ready)
        self._capacity = Capacity(self.places, tokens, self.starting, len(self.ready))
        self._start(self.room.resize(self._capacity, self._agenda.now))

    def _hear(self) -> None:
        """How far the running calls are, where the room has too little else to tell by."""
        now = self._agenda.now
        if not self.room.wants_progress or now < self._heard + _HEAR_S:
            return
        if not self._waiting and len(self._running) > _MANY and now < self._heard + _HEAR_CALM_S:
            return
        self._heard = now
        self.room.progress({ticket: call.tokens(now) for ticket, call in self._running.items()}, now)

    def _beat_soon(self) -> None:
        if not self._beats:
            self._beats = True
            self._agenda.at(self._agenda.now + _BEAT_S, self._beat)

    def _beat(self, _: object) -> None:
        """What is believed of the engines changes with time alone."""
        self._beats = False
        self._hear()
        self._start(self.room.resize(self._capacity, self._agenda.now))
        if self._waiting:
            self._beat_soon()

    def _tell_pressures(self, _: object) -> None:
        """Those that are comfortable need not say so: what was told before lapses of itself."""
        now = self._agenda.now
        for replica in self.ready:
            engine = replica.engine
            if replica.calls and (engine.waiting or engine.kv_usage > _WORTH_TELLING):
                self._router.told(replica.id, Pressure(engine.kv_usage, engine.waiting), now)
        self._agenda.at(now + _TELL_S, self._tell_pressures)
