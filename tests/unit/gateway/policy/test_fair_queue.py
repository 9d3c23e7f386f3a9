"""Virtual token counters: what tenants with calls waiting get, by weight, never differs by more than the bound."""

from __future__ import annotations

from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.policy.ask import Ask, Ticket, cost_of
from gateway.policy.fair_queue import SLACK_CALLS, Call, FairQueue, Promise
from gateway.policy.limits import Tier

WEIGHTS = {"a": 1.0, "b": 1.0, "c": 2.0}
LARGEST = cost_of(1000, 500)
MOST_RUNNING = 2
MOST_WRONG = 0.25  # of an estimate, in either direction


class Counters(RuleBasedStateMachine):
    """Tenants that all have calls waiting since a moment, whatever comes in, is given up, ends and was estimated wrongly.

    By theorem 4.4 of the paper the bound is twice the most that one tenant can be charged beyond another: the largest call, and
    what estimates of its running calls are corrected by.
    """

    BOUND = 2.0 * (LARGEST + MOST_RUNNING * MOST_WRONG * LARGEST)

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue()
        self.numbers = count(1)
        self.waiting: dict[Ticket, Call] = {}
        self.running: list[Call] = []
        self.served = dict.fromkeys(WEIGHTS, 0.0)
        # Of each pair: the difference of what they were served, by weight, when both had calls waiting for the first time.
        self.since: dict[tuple[str, str], float] = {}

    @rule(tenant=st.sampled_from(sorted(WEIGHTS)), calls=st.integers(1, 12), data=st.data())
    def arrive(self, tenant: str, calls: int, data: st.DataObject) -> None:
        prompt, output = data.draw(st.sampled_from([(1, 1), (500, 20), (1000, 500)]))
        for _ in range(calls):
            ask = Ask(tenant, Tier.FREE, prompt, output, WEIGHTS[tenant])
            call = Call(Ticket(next(self.numbers)), ask, 2, self.queue.enter(ask, 0.0), 0.0)
            self.queue.add(call, returned=False)
            self.waiting[call.ticket] = call
        self.look()

    @precondition(lambda self: self.waiting)
    @rule(calls=st.integers(1, 12), data=st.data())
    def start(self, calls: int, data: st.DataObject) -> None:
        for _ in range(min(calls, len(self.waiting))):
            if len(self.running) == MOST_RUNNING:
                self.end(data, data.draw(st.sampled_from([-MOST_WRONG, 0.0, MOST_WRONG])))
            call = next(self.queue.turns())
            self.queue.remove(call)
            self.queue.start(call, 0.0)
            del self.waiting[call.ticket]
            self.running.append(call)
            self.served[call.ask.tenant] += call.cost / call.ask.weight
            self.look()

    def end(self, data: st.DataObject, wrong: float) -> None:
        call = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.queue.end(call.line)
        self.queue.charge(call.line, wrong * call.cost)
        self.served[call.ask.tenant] += wrong * call.cost / call.ask.weight
        self.look()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        call = self.waiting.pop(data.draw(st.sampled_from(sorted(self.waiting))))
        self.queue.remove(call)
        self.look()

    def look(self) -> None:
        backlogged = {call.ask.tenant for call in self.waiting.values()}
        for one, other in ((one, other) for one in WEIGHTS for other in WEIGHTS if one < other):
            if {one, other} <= backlogged:
                self.since.setdefault((one, other), self.served[one] - self.served[other])
            else:
                self.since.pop((one, other), None)

    @invariant()
    def the_bound_holds(self) -> None:
        for (one, other), before in self.since.items():
            assert abs(self.served[one] - self.served[other] - before) <= self.BOUND

    @invariant()
    def sums_are_those_of_the_calls(self) -> None:
        assert self.queue.waiting == len(self.waiting)
        assert abs(self.queue.backlog - sum(call.cost for call in self.waiting.values())) < 1e-6
        for call in self.waiting.values():
            assert 0 <= self.queue.ahead(call) < len(self.waiting)


Counters.TestCase.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
TestCounters = Counters.TestCase

numbers = count(1)


def waiting(queue: FairQueue, tenant: str, *, weight: float = 1.0, returned: bool = False, output: int = 100) -> Call:
    ask = Ask(tenant, Tier.FREE, 100, output, weight)
    call = Call(Ticket(next(numbers)), ask, 2, queue.enter(ask, 0.0), 0.0)
    queue.add(call, returned)
    return call


def order(queue: FairQueue, most: int = 1000) -> str:
    """The tenants in the order in which they start."""
    started: list[str] = []
    while queue.waiting and len(started) < most:
        call = next(queue.turns())
        queue.remove(call)
        queue.start(call, 0.0)
        started.append(call.ask.tenant)
    return "".join(started)


def test_tenants_take_turns_whoever_came_first() -> None:
    queue = FairQueue()
    for tenant in "aaaabb":
        waiting(queue, tenant)
    assert order(queue) == "ababaa"


def test_weight_is_the_share_of_turns() -> None:
    queue = FairQueue()
    for _ in range(6):
        waiting(queue, "a", weight=2.0)
        waiting(queue, "b")
    assert order(queue, 6).count("a") == 4


def test_idle_tenant_has_no_credit_for_the_past() -> None:
    queue = FairQueue()
    waiting(queue, "b")
    for _ in range(30):
        waiting(queue, "a")
    order(queue, 20)
    for _ in range(10):
        waiting(queue, "b")
    assert order(queue, 6).count("b") == 3


def test_large_calls_count_as_what_they_are() -> None:
    queue = FairQueue()
    for _ in range(8):
        waiting(queue, "a", output=1000)
        waiting(queue, "b", output=50)
    assert order(queue, 8).count("b") >= 6


def test_what_was_estimated_too_high_is_given_back() -> None:
    queue = FairQueue()
    for _ in range(4):
        waiting(queue, "a")
        waiting(queue, "b")
    order(queue, 2)
    queue.charge(queue.lines["b"], -300.0)  # what one call was charged
    assert order(queue, 3) == "bab"


def test_who_comes_again_as_told_is_before_the_others_of_the_tenant() -> None:
    queue = FairQueue()
    waiting(queue, "a")
    told = waiting(queue, "a", returned=True)
    assert next(queue.turns()) is told


def test_tenant_that_is_a_little_ahead_keeps_what_its_callers_were_told() -> None:
    queue = FairQueue()
    for _ in range(6):
        waiting(queue, "a")
        waiting(queue, "b")
    order(queue, 1)
    told = waiting(queue, "a", returned=True)
    assert next(queue.turns()) is told


def test_tenant_with_little_waiting_is_not_passed_over_for_that() -> None:
    queue = FairQueue()
    quiet = waiting(queue, "b")
    queue.charge(queue.enter(Ask("a", Tier.FREE, 100, 100), 0.0), 300.0)
    for _ in range(6):
        waiting(queue, "a", returned=True)
    assert next(queue.turns()) is quiet


def test_who_was_told_to_come_first_is_first_whatever_tenants_were_served() -> None:
    queue = FairQueue()
    for _ in range(6):
        waiting(queue, "a")
        waiting(queue, "b")
    order(queue, 1)
    sooner, later = waiting(queue, "a", returned=True), waiting(queue, "b", returned=True)
    assert next(queue.turns()) is sooner
    queue.remove(sooner)
    assert next(queue.turns()) is later


def test_tenant_whose_callers_were_told_to_come_later_is_not_one_with_little() -> None:
    queue = FairQueue()
    waiting(queue, "b")
    for number in range(5):
        queue.promise(Promise(queue.lines["b"], "", 60.0 + number, 60.0, 300.0))
    queue.charge(queue.enter(Ask("a", Tier.FREE, 100, 100), 0.0), 300.0)
    told = waiting(queue, "a", returned=True)
    assert next(queue.turns()) is told


def ahead(queue: FairQueue, tenant: str, cost: float) -> None:
    queue.charge(queue.enter(Ask(tenant, Tier.FREE, 100, 100), 0.0), cost)


def test_single_calls_pass_a_tenant_with_many_in_the_order_in_which_they_came() -> None:
    queue = FairQueue()
    for _ in range(8):
        waiting(queue, "loud", returned=True)
    ahead(queue, "b", 2000.0)
    ahead(queue, "c", 1000.0)
    singles = [waiting(queue, "b"), waiting(queue, "c")]
    for single in singles:
        assert next(queue.turns()) is single
        queue.remove(single)
    assert next(queue.turns()).ask.tenant == "loud"


def test_tenant_that_is_far_ahead_passes_nobody() -> None:
    queue = FairQueue()
    for _ in range(8):
        waiting(queue, "loud")
    ahead(queue, "b", 300.0 * (SLACK_CALLS + 1))
    waiting(queue, "b")
    assert next(queue.turns()).ask.tenant == "loud"


def test_idle_tenants_are_forgotten_in_time() -> None:
    queue = FairQueue()
    for number in range(1000):
        ask = Ask(f"t{number}", Tier.FREE, 1, 1)
        call = Call(Ticket(number), ask, 2, queue.enter(ask, float(number)), float(number))
        queue.start(call, float(number))
        queue.end(call.line)
    assert len(queue.lines) < 200


def test_promised_cost_is_counted_until_settled() -> None:
    queue = FairQueue()
    line = queue.enter(Ask("a", Tier.FREE, 1, 1), 0.0)
    later, sooner = Promise(line, "", 20.0, 20.0, 5.0), Promise(line, "", 10.0, 10.0, 5.0)
    queue.promise(later)
    queue.promise(sooner)
    assert line.promises == [sooner, later]
    assert queue.promised_before(15.0) == 5.0
    queue.settle(sooner)
    queue.settle(later)
    assert (queue.promised, line.promised, line.is_idle()) == (0.0, 0.0, True)
