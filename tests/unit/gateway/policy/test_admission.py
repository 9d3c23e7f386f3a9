"""The waiting room: who starts, who waits, who is turned away, and what they are told."""

from __future__ import annotations

import math
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.policy.admission import Ask, Capacity, Decision, Rules, Step, Ticket, WaitingRoom
from gateway.policy.limits import Tier

MOST_WAITING = 40


class Room(RuleBasedStateMachine):
    """Calls arrive, are answered and leave, the fleet grows and shrinks; the model is two sets."""

    def __init__(self) -> None:
        super().__init__()
        self.room = WaitingRoom(Rules(most_waiting=MOST_WAITING))
        self.running: dict[Ticket, Ask] = {}
        self.waiting: dict[Ticket, Ask] = {}
        self.capacity = Capacity(0)
        self.now = 0.0
        self.numbers = count(1)

    def pass_time(self, passed_s: float) -> None:
        self.now += passed_s

    def started(self, tickets: list[Ticket]) -> None:
        """None twice, none that did not wait."""
        for ticket in tickets:
            self.running[ticket] = self.waiting.pop(ticket)

    @rule(
        passed_s=st.floats(0, 20),
        tenant=st.sampled_from("abc"),
        tier=st.sampled_from(Tier),
        prompt=st.integers(1, 900),
        output=st.integers(1, 300),
        weight=st.sampled_from([1.0, 3.0]),
        caller=st.sampled_from(["", "x", "y"]),
    )
    def arrive(self, passed_s: float, tenant: str, tier: Tier, prompt: int, output: int, weight: float, caller: str) -> None:
        self.pass_time(passed_s)
        ticket, ask = Ticket(next(self.numbers)), Ask(tenant, tier, prompt, output, weight, None, caller)
        full = len(self.running) >= self.capacity.places
        decision = self.room.arrive(ticket, ask, self.now)
        if decision is Decision.START:
            assert not full
            self.running[ticket] = ask
        elif decision is Decision.WAIT:
            self.waiting[ticket] = ask
        else:
            assert 1 <= self.room.retry_after_s(ask, self.now, 0.5) <= 720

    @precondition(lambda self: self.running)
    @rule(data=st.data(), passed_s=st.floats(0, 20), used=st.none() | st.tuples(st.integers(1, 900), st.integers(0, 900)))
    def finish(self, data: st.DataObject, passed_s: float, used: tuple[int, int] | None) -> None:
        self.pass_time(passed_s)
        ticket = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[ticket]
        self.started(self.room.leave(ticket, self.now, used))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.waiting)))
        del self.waiting[ticket]
        self.started(self.room.leave(ticket, self.now))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), took_s=st.floats(0, 5))
    def answer(self, data: st.DataObject, took_s: float) -> None:
        self.started(self.room.first_token(data.draw(st.sampled_from(sorted(self.running))), took_s, self.now))

    @rule()
    def leave_twice(self) -> None:
        """A ticket that is gone already changes nothing."""
        assert self.room.leave(Ticket(0), self.now) == []

    @rule(places=st.integers(0, 12), tokens=st.sampled_from([0, 4000]), replicas=st.integers(1, 3))
    def resize(self, places: int, tokens: int, replicas: int) -> None:
        self.capacity = Capacity(places, tokens, 0, min(replicas, max(1, places)))
        self.started(self.room.resize(self.capacity, self.now))

    @invariant()
    def nobody_is_lost(self) -> None:
        assert (self.room.running, self.room.waiting) == (len(self.running), len(self.waiting))
        assert len(self.waiting) <= MOST_WAITING
        tiers = self.room.demand(self.now).tiers
        for tier in Tier:
            of_tier = [ask for ask in self.waiting.values() if ask.tier is tier]
            assert tiers[tier].waiting == len(of_tier)
            assert tiers[tier].waiting_tokens == sum(ask.prompt_tokens + ask.output_tokens for ask in of_tier)
            assert tiers[tier].running == sum(ask.tier is tier for ask in self.running.values())

    @invariant()
    def each_replica_has_a_call_while_others_than_batch_wait(self) -> None:
        if self.capacity.places and any(ask.tier is not Tier.BATCH for ask in self.waiting.values()):
            assert len(self.running) >= min(self.capacity.replicas, self.capacity.places)

    @invariant()
    def what_is_told_is_sane(self) -> None:
        for ticket, ask in self.waiting.items():
            assert 1 <= self.room.position(ticket) <= len(self.waiting)
            assert 0 <= self.room.expected_wait_s(ticket, self.now) < math.inf
            assert self.room.patience_s(ticket) == (600 if ask.tier is Tier.BATCH else 30 if self.capacity.places else 120)


Room.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestRoom = Room.TestCase

numbers = count(1)


def ask(tenant: str = "a", tier: Tier = Tier.FREE, *, patience_s: float | None = None, caller: str = "") -> Ask:
    return Ask(tenant, tier, 100, 100, 1.0, patience_s, caller)


def room_of(places: int, **rules: float) -> WaitingRoom:
    room = WaitingRoom(Rules(**rules))  # type: ignore[arg-type]
    assert room.resize(Capacity(places), 0.0) == []
    return room


def arrive(room: WaitingRoom, what: Ask, now: float = 0.0) -> tuple[Ticket, Decision]:
    ticket = Ticket(next(numbers))
    return ticket, room.arrive(ticket, what, now)


def drained(places: int = 10, per_call_s: float = 10.0, **rules: float) -> tuple[WaitingRoom, list[Ticket], float]:
    """A room whose calls take that long, measured for a while, with all places taken."""
    room, now = room_of(places, **rules), 0.0
    running = [arrive(room, ask("z"), now)[0] for _ in range(places)]
    for _ in range(30 * places):
        now += per_call_s / places
        assert room.leave(running.pop(0), now, (100, 100)) == []
        running.append(arrive(room, ask("z"), now)[0])
    return room, running, now


def test_starts_while_there_is_room_then_waits_then_starts_when_one_leaves() -> None:
    room = room_of(1)
    first, decision = arrive(room, ask())
    assert decision is Decision.START
    second, decision = arrive(room, ask())
    assert decision is Decision.WAIT
    assert room.position(second) == 1
    assert room.leave(first, 1.0) == [second]


def test_kv_cache_bounds_what_runs() -> None:
    room = WaitingRoom(Rules())
    room.resize(Capacity(places=100, tokens=1000), 0.0)
    decisions = [arrive(room, ask())[1] for _ in range(6)]
    assert decisions == [Decision.START] * 4 + [Decision.WAIT] * 2  # 200 tokens each, of 950


def test_call_larger_than_all_there_is_starts_on_an_idle_replica() -> None:
    room = WaitingRoom(Rules())
    room.resize(Capacity(places=4, tokens=100), 0.0)
    assert arrive(room, ask())[1] is Decision.START
    assert arrive(room, ask())[1] is Decision.WAIT


def test_call_that_would_wait_longer_than_its_patience_is_rejected_at_once() -> None:
    room, _, now = drained()  # one leaves every second
    for _ in range(5):
        assert arrive(room, ask(), now)[1] is Decision.WAIT
    assert arrive(room, ask(patience_s=3.0), now)[1] is Decision.REJECT
    assert arrive(room, ask(patience_s=9.0), now)[1] is Decision.WAIT


def test_paid_calls_wait_for_a_few_places_and_the_others_are_told_at_once() -> None:
    room, _, now = drained()
    decisions = [arrive(room, ask("p", Tier.PAID), now)[1] for _ in range(6)]
    assert decisions == [Decision.WAIT] * 2 + [Decision.REJECT] * 4
    assert arrive(room, ask("p", Tier.PAID, patience_s=20.0), now)[1] is Decision.WAIT


def test_expected_wait_follows_the_drain() -> None:
    room, running, now = drained()
    tickets = [arrive(room, ask(), now)[0] for _ in range(8)]
    assert room.expected_wait_s(tickets[-1], now) == pytest.approx(8.0, rel=0.1)
    for _ in range(4):
        now += 1.0
        running += room.leave(running.pop(0), now, (100, 100))
    assert room.position(tickets[-1]) == 4
    assert room.expected_wait_s(tickets[-1], now) == pytest.approx(4.0, rel=0.1)


def test_one_tenants_queue_leaves_room_for_others() -> None:
    room = room_of(1, most_waiting=100)
    arrive(room, ask("z"))
    flood = [arrive(room, ask("flood"))[1] for _ in range(200)]
    assert flood.count(Decision.WAIT) < 50
    assert arrive(room, ask("quiet"))[1] is Decision.WAIT


def test_quiet_tenant_comes_before_the_backlog_of_a_loud_one() -> None:
    room, running, now = drained()
    for _ in range(20):
        arrive(room, ask("loud"), now)
    quiet, _ = arrive(room, ask("quiet"), now)
    assert room.position(quiet) <= 2
    first = room.leave(running.pop(0), now + 1, (100, 100))
    assert quiet in first + room.leave(running.pop(0), now + 2, (100, 100))


def test_batch_starts_only_if_nobody_else_waits() -> None:
    room = room_of(1)
    running, _ = arrive(room, ask())
    batch, _ = arrive(room, ask("b", Tier.BATCH))
    free, _ = arrive(room, ask("c"))
    assert room.leave(running, 1.0) == [free]
    assert room.leave(free, 2.0) == [batch]


def test_batch_leaves_some_places_idle() -> None:
    room, decisions = room_of(20), []
    for _ in range(20):
        ticket, decision = arrive(room, ask("b", Tier.BATCH))
        decisions.append(decision)
        room.first_token(ticket, 0.1, 0.0)
    assert decisions.count(Decision.START) == 18
    assert arrive(room, ask())[1] is Decision.START


def test_tier_borrows_what_is_idle_and_the_guaranteed_share_comes_back() -> None:
    room = room_of(10)
    running = [arrive(room, ask())[0] for _ in range(10)]
    paid = [arrive(room, ask("p", Tier.PAID))[0] for _ in range(4)]
    free = [arrive(room, ask())[0] for _ in range(4)]
    started = [ticket for number, one in enumerate(running[:4]) for ticket in room.leave(one, 1.0 + number)]
    assert started == paid
    assert room.leave(running[4], 9.0) == [free[0]]


def test_tiers_below_their_shares_divide_what_the_engines_read() -> None:
    """Paid calls hold more of their share than reserved ones do of theirs, and do not wait until those have as much."""
    room = room_of(100, prompt_s=30.0)
    for _ in range(10):
        ticket, decision = arrive(room, ask("p", Tier.PAID))
        assert decision is Decision.START
        room.first_token(ticket, 0.1, 0.1)
    unread = []
    while (came := arrive(room, ask(), 0.2))[1] is Decision.START:
        unread.append(came[0])
    paid = {arrive(room, ask("p", Tier.PAID), 0.2)[0] for _ in range(6)}
    reserved = {arrive(room, ask("r", Tier.RESERVED), 0.2)[0] for _ in range(6)}
    started = [one for number, ticket in enumerate(unread[:6]) for one in room.first_token(ticket, 0.1, 0.3 + 0.01 * number)]
    assert len(paid.intersection(started[:6])) == len(reserved.intersection(started[:6])) == 3


def test_tenant_that_was_told_more_than_its_share_is_told_later() -> None:
    room, _, now = drained()  # one leaves every second
    while arrive(room, ask("crowd", patience_s=5.0), now)[1] is Decision.WAIT:
        pass
    told = [room.retry_after_s(ask("crowd", caller=f"c{caller}"), now, 0.5) for caller in range(60)]
    assert max(told) < 75
    assert room.retry_after_s(ask("few", caller="x"), now, 0.5) < 10
    assert room.retry_after_s(ask("crowd", caller="c60"), now, 0.5) > 80


def test_prompt_call_that_waits_is_not_passed_over_by_one_who_was_told_to_come() -> None:
    """Both hardly wait, or are told at once; where both are patient, the one who was told is first."""
    for prompt_s, first in ((0.0, 0), (30.0, 1)):
        room, running, now = drained(prompt_s=prompt_s)
        told_s = room.retry_after_s(ask("p", Tier.PAID, caller="x"), now, 0.5)
        now += told_s
        waiting = [arrive(room, ask("p", Tier.PAID, caller=caller), now) for caller in ("y", "x")]
        assert [decision for _, decision in waiting] == [Decision.WAIT, Decision.WAIT]
        assert room.leave(running[0], now, (100, 100)) == [waiting[first][0]]


def test_told_times_follow_one_another_and_come_true() -> None:
    """Fifty callers are turned away from a full room that drains one a second; each comes again when told and starts then."""
    room, running, now = drained()
    while arrive(room, ask("crowd", patience_s=5.0), now)[1] is Decision.WAIT:
        pass
    told = [now + room.retry_after_s(ask("crowd", caller=f"c{caller}"), now, 0.5) for caller in range(50)]
    assert told == sorted(told)
    assert told[49] - told[0] == pytest.approx(49, rel=0.2)
    came: dict[Ticket, float] = {}
    waits_s: list[float] = []
    while len(waits_s) < 50:
        now += 1.0
        while len(came) < 50 and told[len(came)] <= now:
            ticket, decision = arrive(room, ask("crowd", caller=f"c{len(came)}"), now)
            came[ticket] = now
            assert decision is not Decision.REJECT
            if decision is Decision.START:
                running.append(ticket)
                waits_s.append(0.0)
        if running:
            for ticket in room.leave(running.pop(0), now, (100, 100)):
                running.append(ticket)
                if ticket in came:
                    waits_s.append(now - came[ticket])
    assert max(waits_s) <= 3.0


def test_one_who_comes_too_early_is_told_the_same_time_again() -> None:
    room, _, now = drained()
    for _ in range(10):
        arrive(room, ask(), now)
    first = room.retry_after_s(ask(caller="x"), now, 0.5)
    assert room.retry_after_s(ask(caller="x"), now + 2.0, 0.5) == first - 2.0
    assert room.demand(now).promised == 1


def test_replicas_that_are_not_there_yet_are_waited_for() -> None:
    room = room_of(0)
    ticket, decision = arrive(room, ask())
    assert decision is Decision.WAIT
    assert room.patience_s(ticket) == 120
    assert room.resize(Capacity(2), 50.0) == [ticket]


def test_ladder_goes_up_at_once_and_down_one_by_one() -> None:
    room, running, now = drained()
    assert room.step(now) is Step.NONE
    waiting = [arrive(room, ask(), now)[0] for _ in range(20)]
    assert room.step(now) is Step.BATCH_WAITS
    assert room.output_cap(ask(), now) is None
    now += 3.0
    assert room.step(now) is Step.FALL_BACK
    assert room.output_cap(ask(), now) == 256
    assert room.output_cap(ask("p", Tier.PAID), now) is None
    assert room.prefers_fall_back(ask(), now)
    arrive(room, ask(patience_s=1.0), now)
    assert room.step(now) is Step.REJECTING
    for ticket in waiting:
        room.leave(ticket, now)
    steps = [room.step(now + 6.0 + 2.0 * number) for number in range(5)]
    assert steps == [Step.FALL_BACK, Step.OUTPUT_CAPPED, Step.BATCH_WAITS, Step.NONE, Step.NONE]
    assert running


def test_ten_thousand_wait_and_all_start() -> None:
    room = room_of(1, most_waiting=40_000)
    running, _ = arrive(room, ask("z"))
    for number in range(10_000):
        assert arrive(room, ask(f"t{number % 500}"))[1] is Decision.WAIT
    started = 0
    while tickets := room.leave(running, 1.0 + started):
        (running,) = tickets
        started += 1
    assert started == 10_000


def burst(told_of: float | None) -> tuple[WaitingRoom, float]:
    """Ten running calls of 100 + 100 tokens that take 20 s, half a second in; the share of them whose progress is told."""
    room = room_of(10)
    running = [arrive(room, ask(f"t{number}"))[0] for number in range(10)]
    for ticket in running:
        room.first_token(ticket, 0.2, 0.2)
    for _ in range(3):
        arrive(room, ask("w"), 0.3)
    if told_of is not None:
        known = int(10 * told_of)
        room.progress({ticket: 25 if number < known else None for number, ticket in enumerate(running)}, 5.0)
    return room, 5.0


@pytest.mark.parametrize("told_of", [1.0, 0.3])
def test_what_running_calls_have_generated_tells_the_first_callers_their_time(told_of: float) -> None:
    """Streams that have made 25 of 100 tokens 4.8 s after the first take 19.4 s, so of ten one leaves every other second."""
    room, now = burst(told_of)
    assert room.retry_after_s(ask("w"), now, 0.5) in (8.0, 9.0)  # behind three


def test_first_callers_of_engines_of_which_nothing_is_known_are_told_their_patience() -> None:
    room, now = burst(None)
    assert room.retry_after_s(ask("new"), now, 0.5) == 45.0


def test_progress_of_calls_that_are_gone_or_wait_changes_nothing() -> None:
    room = room_of(1)
    arrive(room, ask())
    waiting, _ = arrive(room, ask(), 1.0)
    room.progress({Ticket(1 << 60): 5, waiting: 5}, 2.0)
    assert room.retry_after_s(ask("new"), 2.0, 0.0) == 30.0
    assert room.wants_progress
