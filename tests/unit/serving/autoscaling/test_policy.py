"""How many replicas: in tokens, up at once, down late, never on a signal that cannot be believed."""

from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.autoscaling.demand import Demand, UnreadableDemand, read_demand
from serving.autoscaling.policy import Bounds, Capacity, Decision, State, desired_replicas

CAPACITY = Capacity(tokens_per_s=1000.0, cold_start_s=30.0)
BOUNDS = Bounds(least=0, most=10)


def decide(demand: Demand | None, *, current: int, now: float, bounds: Bounds = BOUNDS, state: State | None = None) -> Decision:
    return desired_replicas(demand, CAPACITY, bounds, state or State(), current=current, now=now)


def run(demand_at: list[Demand], *, current: int, bounds: Bounds = BOUNDS) -> list[int]:
    """What is decided at each of these, if what is decided is done at once."""
    state, counts = State(), []
    for demand in demand_at:
        decision = decide(replace(demand, ready=current), current=current, now=demand.at, bounds=bounds, state=state)
        state, current = decision.state, decision.replicas
        counts.append(current)
    return counts


def steady(tokens_per_s: float, seconds: int, start: int = 0) -> list[Demand]:
    return [Demand(at=float(at), arrival_tokens_per_s=tokens_per_s, running=1) for at in range(start, start + seconds)]


def changes(counts: list[int]) -> int:
    return sum(one != other for one, other in pairwise(counts))


def test_as_many_as_the_tokens_that_come_need() -> None:
    assert run(steady(3600.0, 60), current=1)[-1] == 5  # 3.6 replicas' work, at four fifths of their speed


def test_what_waits_asks_for_more_only_where_those_there_are_too_slow() -> None:
    short = Demand(at=0.0, waiting_tokens=5_000, running=8, arrival_tokens_per_s=500.0, ready=1)
    assert decide(short, current=1, now=0.0).replicas == 1
    assert decide(replace(short, waiting_tokens=100_000.0), current=1, now=0.0).replicas > 3


def test_who_was_told_to_come_again_counts_while_others_wait() -> None:
    told = Demand(at=0.0, promised_tokens=100_000, waiting_tokens=500, running=8, arrival_tokens_per_s=500.0, ready=1)
    assert decide(told, current=1, now=0.0).replicas > 3
    assert decide(replace(told, waiting_tokens=0), current=1, now=0.0).replicas == 1


@pytest.mark.parametrize("seed", range(3))
def test_calls_that_differ_in_length_do_not_make_more_of_those_who_were_told_a_time(seed: int) -> None:
    random = Random(seed)  # noqa: S311 - a simulation
    demand = [
        replace(one, promised=400, promised_tokens=400 * random.gauss(1000, 200), arrival_tokens_per_s=random.gauss(2000, 200))
        for one in steady(0.0, 600)
    ]
    assert max(run(demand, current=3)[200:]) <= 4  # 2,000 tokens a second, at four fifths of a replica's speed


def test_batch_work_asks_for_no_replica_but_the_first() -> None:
    bulk = Demand(at=0.0, batch_tokens=10_000_000, running=8, arrival_tokens_per_s=0.0, ready=1)
    assert decide(bulk, current=1, now=0.0).replicas == 1
    assert decide(replace(bulk, running=0, ready=0), current=0, now=0.0).replicas == 1


def test_from_zero_as_soon_as_somebody_asks_and_not_before() -> None:
    assert decide(Demand(at=0.0), current=0, now=0.0).replicas == 0
    assert decide(Demand(at=0.0, waiting_tokens=1), current=0, now=0.0).replicas == 1


def test_replica_that_still_starts_is_not_idle() -> None:
    state = State()
    for at in range(400):
        decision = decide(Demand(at=float(at), starting=1), current=1, now=float(at), state=state)
        state = decision.state
        assert decision.replicas == 1


def test_to_zero_only_when_idle_has_lasted() -> None:
    busy, quiet = steady(100.0, 5), [Demand(at=float(at)) for at in range(5, 700)]
    counts = run(busy + quiet, current=1)
    assert set(counts[:300]) == {1}
    assert counts[-1] == 0


def test_never_to_zero_where_one_is_the_least() -> None:
    assert run([Demand(at=float(at)) for at in range(700)], current=1, bounds=Bounds(least=1, most=4))[-1] == 1


def test_falling_demand_keeps_its_replicas_for_a_while() -> None:
    counts = run(steady(3600.0, 60) + steady(500.0, 400, start=60), current=1)
    assert counts[100] == max(counts)
    assert counts[-1] == 1


def test_who_has_just_begun_lets_no_replica_go_before_it_has_looked_for_a_while() -> None:
    counts = run(steady(100.0, 400), current=6)
    assert set(counts[:119]) == {6}
    assert counts[-1] == 1


@pytest.mark.parametrize("seed", range(5))
def test_noise_does_not_make_it_flap(seed: int) -> None:
    random = Random(seed)  # noqa: S311 - a simulation
    demand = [replace(one, arrival_tokens_per_s=random.gauss(3000, 400)) for one in steady(0.0, 1800)]
    assert changes(run(demand, current=4)[60:]) <= 4


def test_demand_that_flaps_makes_a_fleet_that_does_not() -> None:
    demand = [replace(one, arrival_tokens_per_s=4000.0 if one.at % 60 < 30 else 400.0) for one in steady(0.0, 1800)]
    assert changes(run(demand, current=4)[120:]) <= 1


@pytest.mark.parametrize(
    ("demand", "now", "said"),
    [
        (None, 0.0, "does not say"),
        (Demand(at=0.0), 16.0, "16 s old"),
        (Demand(at=100.0), 0.0, "ahead of this clock"),
        (Demand(at=3.0), 4.0, "older than what it said before"),
    ],
)
def test_nothing_changes_on_a_signal_that_cannot_be_believed(demand: Demand | None, now: float, said: str) -> None:
    state = State(last_at=5.0, wanted=((0.0, 7),))
    decision = decide(demand, current=3, now=now, state=state)
    assert (decision.replicas, decision.state) == (3, state)
    assert said in decision.reason


def test_replica_is_measured_while_calls_wait() -> None:
    slow = [Demand(at=float(at), waiting_tokens=50_000, drain_tokens_per_s=800.0, ready=2, running=60) for at in range(600)]
    state = State()
    for demand in slow:
        state = decide(demand, current=2, now=demand.at, state=state).state
    assert state.tokens_per_s == pytest.approx(400.0, rel=0.05)


def test_fleet_that_fills_or_has_just_grown_is_not_taken_for_a_slow_one() -> None:
    state = State()
    for at in range(600):  # every minute calls begin to wait, or there is one replica more; answers take half a minute
        filling = min(1.0, at % 60 / 30)
        ready, waiting = (2, 50_000 * (at % 60 > 0)) if at < 300 else (at // 60, 50_000)
        demand = Demand(float(at), waiting, drain_tokens_per_s=filling * 1000.0 * ready, ready=ready, running=60)
        state = decide(demand, current=ready, now=demand.at, state=state).state
    assert state.tokens_per_s is None


@given(
    st.lists(
        st.builds(
            Demand,
            at=st.just(0.0),
            waiting_tokens=st.floats(0, 1e6),
            batch_tokens=st.floats(0, 1e6),
            promised_tokens=st.floats(0, 1e6),
            running=st.integers(0, 500),
            arrival_tokens_per_s=st.floats(0, 1e5),
            drain_tokens_per_s=st.floats(0, 1e5),
            ready=st.integers(0, 20),
            starting=st.integers(0, 20),
        ),
        max_size=30,
    ),
    st.integers(0, 3),
    st.integers(3, 12),
)
def test_bounds_hold_and_every_decision_says_why(demands: list[Demand], least: int, most: int) -> None:
    state, current, bounds = State(), least, Bounds(least=least, most=most)
    for step, demand in enumerate(demands):
        now = 7.0 * step
        decision = decide(replace(demand, at=now), current=current, now=now, bounds=bounds, state=state)
        assert least <= decision.replicas <= most
        assert decision.reason
        state, current = decision.state, decision.replicas


@given(st.floats(0, 50_000), st.floats(0, 50_000), st.floats(0, 1e6))
def test_more_demand_never_means_fewer(flow: float, more: float, waits: float) -> None:
    bounds = Bounds(least=0, most=1000)
    less = Demand(at=0.0, arrival_tokens_per_s=flow, waiting_tokens=waits, running=1, ready=3)
    greater = replace(less, arrival_tokens_per_s=flow + more)
    first, second = (decide(demand, current=3, now=0.0, bounds=bounds).replicas for demand in (less, greater))
    assert first <= second


def test_what_the_gateway_says_is_read() -> None:
    answer = b"""{"models": {"a": {"tiers": {"paid": {"waiting": 2, "waiting_tokens": 600, "running": 3, "running_tokens": 900},
        "batch": {"waiting": 1, "waiting_tokens": 50, "running": 0, "running_tokens": 0}},
        "replicas": {"ready": 2, "starting": 1}, "places": 8, "arrivals_per_s": 4.0, "arrival_tokens_per_s": 1200.0,
        "drain_tokens_per_s": 1000.0, "rejections_per_s": 1.0, "promised": 5, "step": "none"}}}"""
    demand = read_demand(answer, "a", at=7.0)
    assert demand == Demand(
        at=7.0,
        waiting_tokens=600.0,
        batch_tokens=50.0,
        promised_tokens=1500.0,
        running=3,
        arrival_tokens_per_s=900.0,
        drain_tokens_per_s=1000.0,
        ready=2,
        starting=1,
        promised=5,
    )


@pytest.mark.parametrize("answer", [b"", b"<html>", b"{}", b'{"models": {}}', b'{"models": {"a": {"tiers": 1}}}'])
def test_what_is_no_demand_is_refused(answer: bytes) -> None:
    with pytest.raises(UnreadableDemand):
        read_demand(answer, "a", at=0.0)
