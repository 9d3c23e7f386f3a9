"""Calls through a waiting room to small engines: each is served, waits, is evicted or comes again, when it should be."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.model import EngineFigures
from gateway.policy.admission import Rules, WaitingRoom
from gateway.policy.limits import Tier
from loadtests.overload_sim import Outcome, Simulation, Visit

# A call alone takes 1 s for 50 tokens of prompt with the first of its answer, and 1.5 s for each further one.
FIGURES = EngineFigures(
    0.5, 0.01, 1.0, max_num_seqs=2, max_num_batched_tokens=100, max_model_len=100, kv_blocks=40, block_tokens=10
)
PATIENT = Rules(busy_s=1000.0, batch_s=1000.0, prompt_s=1000.0, target_first_token_s=1000.0)


def visit(at: float, tokens: int = 3, **fields: object) -> Visit:
    said = {"tenant": "school", "tier": Tier.FREE, "prompt_tokens": 50, "expected_tokens": tokens, **fields}
    return Visit(at=at, output_tokens=tokens, **said)  # type: ignore[arg-type]


def simulation(rules: Rules | None = None, replicas: int = 1, places: int = 0) -> Simulation:
    return Simulation(FIGURES, replicas, None if rules is None else WaitingRoom(rules), 1, places)


def times(outcome: Outcome) -> tuple[float, float, float, float]:
    return outcome.came, outcome.started, outcome.first, outcome.ended


def test_without_a_room_all_calls_are_in_the_engines_at_once() -> None:
    made = simulation()
    one, other, third = made.run([visit(0.0), visit(0.0), visit(0.0)], 100.0)
    assert [one.started, other.started, third.started] == [0.0, 0.0, 0.0]
    assert one.ended <= third.first, "the engine has two seats"
    assert other.first < third.first
    assert not third.told


def test_call_alone_takes_what_its_engine_takes() -> None:
    (outcome,) = simulation(PATIENT).run([visit(10.0, target_s=1.0)], 100.0)
    assert times(outcome) == (10.0, 10.0, 11.0, 14.0)
    assert (outcome.first_token_s, outcome.was_served, outcome.was_good, outcome.tokens) == (1.0, True, True, 53)


def test_answer_is_good_only_if_its_first_token_came_in_time() -> None:
    (outcome,) = simulation(PATIENT).run([visit(10.0, target_s=0.9)], 100.0)
    assert (outcome.was_served, outcome.was_good) == (True, False)


def test_what_has_not_happened_when_the_run_ends_is_unknown() -> None:
    running, waiting = simulation(PATIENT, places=1).run([visit(0.0), visit(0.5), visit(3.0)], 2.0)
    assert (running.first, math.isnan(running.ended)) == (1.0, True)
    assert (math.isnan(waiting.started), waiting.was_served, waiting.was_good) == (True, False, False)


def test_room_lets_a_call_wait_until_a_place_is_free() -> None:
    first, second = simulation(PATIENT, places=1).run([visit(0.0), visit(1.0)], 100.0)
    assert times(first) == (0.0, 0.0, 1.0, 4.0)
    assert times(second) == (1.0, 4.0, 5.0, 8.0)


def test_fleet_that_grows_takes_who_waits() -> None:
    made = simulation(PATIENT, places=1)
    made.at(2.0, lambda: made.resize(2, 1))
    _, second = made.run([visit(0.0), visit(1.0)], 100.0)
    assert second.started == 2.0


def test_calls_go_to_the_engine_that_has_least_to_read() -> None:
    outcomes = simulation(replicas=2).run([visit(0.0), visit(0.1), visit(0.2, prompt_tokens=10), visit(0.3)], 100.0)
    assert [outcome.engine for outcome in outcomes[:2]] == [0, 1]
    assert sorted(outcome.engine for outcome in outcomes[2:]) == [0, 1]


def test_patience_that_ends_evicts_and_a_time_is_told() -> None:
    _, second = simulation(PATIENT, places=1).run([visit(0.0, 50), visit(1.0, patience_s=3.0)], 100.0)
    assert second.evicted
    assert not second.was_served
    ((told_at, told_s),) = second.told
    assert told_at == 4.0
    assert told_s >= 1.0


def test_who_is_turned_away_at_once_was_not_evicted() -> None:
    full = Rules(most_waiting=0)
    _, second = simulation(full, places=1).run([visit(0.0, 50), visit(1.0)], 100.0)
    assert (second.evicted, second.was_served) == (False, False)
    assert [at for at, _ in second.told] == [1.0]


def test_who_comes_again_does_so_when_told_and_is_one_caller_throughout() -> None:
    outcomes = simulation(Rules(most_waiting=0), places=1).run([visit(0.0, 10), visit(1.0, comes_again=True)], 500.0)
    assert len(outcomes) == 2
    second = outcomes[1]
    assert second.was_served
    assert second.came == pytest.approx(sum(second.told[-1])), "at the time that it was told last"
    assert [at for at, _ in second.told[1:]] == [pytest.approx(sum(told)) for told in second.told[:-1]]
    assert second.first_token_s == pytest.approx(1.0), "counted from when it came last"


def test_free_calls_get_less_output_under_lasting_overload() -> None:
    rules = Rules(busy_s=100.0, free_output_cap_tokens=2, target_first_token_s=1000.0)
    outcomes = simulation(rules, places=1).run([visit(4.0 * number, 6) for number in range(60)], 400.0)
    capped = [outcome for outcome in outcomes if outcome.capped]
    assert {outcome.output_tokens for outcome in capped} == {2}
    assert {outcome.output_tokens for outcome in outcomes if not outcome.capped} == {6}
    assert any(outcome.was_served for outcome in capped)


def test_somebody_may_look_on_at_everything_that_happens() -> None:
    seen: list[float] = []
    made = simulation(PATIENT, places=1)
    made.run([visit(0.0), visit(1.0)], 100.0, seen.append)
    assert seen == sorted(seen)
    assert {0.0, 1.0, 4.0, 5.0, 8.0} <= set(seen)
    assert made.now == 8.0


VISITS = st.lists(
    st.builds(
        visit,
        st.floats(0, 30).map(lambda at: round(at, 1)),
        st.integers(1, 9),
        tenant=st.sampled_from("ab"),
        tier=st.sampled_from(list(Tier)),
        patience_s=st.none() | st.floats(0.1, 20),
        comes_again=st.booleans(),
    ),
    max_size=25,
).map(lambda visits: sorted(visits, key=lambda one: one.at))


@settings(max_examples=40, deadline=None)
@given(VISITS, st.integers(1, 2), st.integers(1, 2))
def test_every_call_has_one_end_and_the_places_are_never_exceeded(visits: list[Visit], replicas: int, places: int) -> None:
    made = simulation(Rules(), replicas, places)
    running: list[int] = []
    outcomes = made.run(visits, math.inf, lambda _: running.append(sum(engine.running for engine in made.engines)))
    assert [outcome.visit for outcome in outcomes] == visits
    for outcome in outcomes:
        if outcome.was_served:
            assert outcome.visit.at <= outcome.came <= outcome.started < outcome.first <= outcome.ended
        else:
            assert outcome.told
            assert not outcome.visit.comes_again
    assert max(running, default=0) <= replicas * places


@settings(max_examples=10, deadline=None)
@given(VISITS)
def test_same_visits_have_the_same_end(visits: list[Visit]) -> None:
    first, second = (simulation(Rules(), 1, 1).run(visits, 200.0) for _ in range(2))
    assert [repr(outcome) for outcome in first] == [repr(outcome) for outcome in second]
