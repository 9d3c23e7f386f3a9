"""The queue against a model so plain that it is clearly right."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.policy.admission import Decision, DrainRate, Patience, Queue, Ticket

MOST_WAITING = 3


class Admission(RuleBasedStateMachine):
    """Calls arrive and leave, the fleet grows and shrinks; the model is two lists."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = Queue(Patience(MOST_WAITING, busy_s=30, cold_s=120))
        self.running: list[Ticket] = []
        self.waiting: list[Ticket] = []
        self.places = 0
        self.now = 0.0
        self.number = 0

    @rule(passed_s=st.floats(0, 100))
    def arrive(self, passed_s: float) -> None:
        self.now += passed_s
        self.number += 1
        ticket = Ticket(self.number)
        decision = self.queue.arrive(ticket, self.now)
        if len(self.running) < self.places:
            assert decision is Decision.START
            self.running.append(ticket)
        elif len(self.waiting) < MOST_WAITING:
            assert decision is Decision.WAIT
            self.waiting.append(ticket)
        else:
            assert decision is Decision.REJECT

    @precondition(lambda self: self.running)
    @rule(data=st.data(), passed_s=st.floats(0, 100))
    def finish(self, data: st.DataObject, passed_s: float) -> None:
        self.now += passed_s
        ticket = data.draw(st.sampled_from(self.running))
        self.running.remove(ticket)
        self.expect_starts(self.queue.leave(ticket, self.now))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(ticket)
        self.expect_starts(self.queue.leave(ticket, self.now))

    @rule()
    def leave_twice(self) -> None:
        """A ticket that is gone already changes nothing."""
        self.expect_starts(self.queue.leave(Ticket(0), self.now))

    @rule(places=st.integers(0, 5))
    def resize(self, places: int) -> None:
        self.places = places
        self.expect_starts(self.queue.resize(places))

    def expect_starts(self, started: list[Ticket]) -> None:
        """First come, first served, as many as fit."""
        free = max(0, self.places - len(self.running))
        expected, self.waiting = self.waiting[:free], self.waiting[free:]
        assert started == expected
        self.running += expected

    @invariant()
    def nobody_is_lost(self) -> None:
        assert (self.queue.running, self.queue.waiting) == (len(self.running), len(self.waiting))
        assert self.queue.places == self.places

    @invariant()
    def nobody_waits_while_a_place_is_free(self) -> None:
        assert not self.queue.waiting or self.queue.running >= self.queue.places

    @invariant()
    def advice_is_sane(self) -> None:
        assert 1.0 <= self.queue.retry_after_s(self.now) <= 600.0
        assert self.queue.patience_s() == (30 if self.places else 120)


Admission.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAdmission = Admission.TestCase


def full_queue(*, waiting: int, places: int = 1) -> Queue:
    queue = Queue(Patience(most_waiting=1000, busy_s=30, cold_s=120), places)
    for number in range(places + waiting):
        queue.arrive(Ticket(number), 0.0)
    return queue


def test_shrunk_fleet_keeps_running_calls_and_starts_no_others() -> None:
    queue = full_queue(places=3, waiting=2)
    assert queue.resize(1) == []
    assert queue.running == 3
    assert queue.leave(Ticket(0), 1.0) == []
    assert queue.leave(Ticket(1), 1.0) == []
    assert queue.leave(Ticket(2), 1.0) == [Ticket(3)]


def test_advice_without_measurements_is_the_patience() -> None:
    assert full_queue(waiting=5).retry_after_s(0.0) == 30
    assert Queue(Patience(0, 30, 120)).retry_after_s(0.0) == 120


def test_advice_follows_the_drain_rate() -> None:
    """One call a second leaves and nine wait: ten seconds, or near it."""
    queue = full_queue(waiting=129)
    for second in range(120):
        queue.leave(Ticket(second), float(second))
    assert queue.waiting == 9
    assert 9 < queue.retry_after_s(119.0) < 11


@given(st.floats(0.05, 20), st.integers(5, 200))
def test_steady_departures_are_measured_as_they_are(per_s: float, departures: int) -> None:
    rate = DrainRate(memory_s=30)
    for number in range(departures):
        rate.left(number / per_s)
    end = (departures - 1) / per_s
    measured = rate.per_s(end)
    assert measured is not None
    if end > 10:
        assert math.isclose(measured, per_s, rel_tol=0.15 if per_s >= 1 else 0.9)
    assert measured > 0


@given(st.lists(st.floats(0, 1e6), max_size=20), st.floats(0, 1e9))
def test_rate_is_unknown_or_finite_and_falls_while_nothing_leaves(gaps: list[float], idle_s: float) -> None:
    rate, now = DrainRate(), 0.0
    for gap in gaps:
        now += gap
        rate.left(now)
    measured, later = rate.per_s(now), rate.per_s(now + idle_s)
    assert (measured is None) == (len(gaps) < 2)
    if measured is not None and later is not None:
        assert 0 <= later <= measured * (1 + 1e-9)
        assert math.isfinite(measured)
