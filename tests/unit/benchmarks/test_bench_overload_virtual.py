"""What the virtual runs come to, from their figures; and that a run's figures are of what happened in it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.overload.traffic import PAID_TARGET_S, PROMPT_TOKENS, Source, mix, tenants, visits
from benchmarks.overload.virtual import LOADS, LaunchRun, LoadRun, NoisyRun, jain, percentile, settled_after_s, was_true
from benchmarks.overload.virtual_report import Runs, tables, verdicts
from gateway.policy.limits import Tier

VALUES = st.lists(st.floats(0, 1e6), min_size=1)


@given(VALUES, st.floats(0, 1))
def test_percentile_is_one_of_the_values_and_so_many_are_below_it(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value < found for value in values) <= share * len(values)
    assert sum(value <= found for value in values) >= share * len(values)


def test_percentile_of_nothing_is_not_a_number() -> None:
    assert math.isnan(percentile([], 0.99))


@given(st.lists(st.floats(0.01, 1e3), min_size=1, max_size=30))
def test_jains_index_is_from_one_nth_to_one_whatever_the_unit(values: list[float]) -> None:
    found = jain(values)
    assert 1.0 / len(values) - 1e-9 <= found <= 1.0 + 1e-9
    assert found == pytest.approx(jain([1000.0 * value for value in values]))


@pytest.mark.parametrize(("values", "index"), [([3, 3, 3, 3], 1.0), ([1, 0, 0, 0], 0.25), ([1, 3], 0.8)])
def test_jains_index(values: list[float], index: float) -> None:
    assert jain(values) == pytest.approx(index)


GOOD_S, LATE_S = PAID_TARGET_S, PAID_TARGET_S + 0.1


@pytest.mark.parametrize(
    ("steps", "after_s"),
    [
        ([], 0.0),
        ([(0.1, GOOD_S), (7.0, GOOD_S)], 0.0),
        ([(0.1, LATE_S), (0.6, GOOD_S)], 0.5),
        ([(0.1, LATE_S), (0.6, GOOD_S), (1.6, LATE_S), (9.0, GOOD_S)], 2.0),
        ([(0.1, GOOD_S)] * 200 + [(0.2, LATE_S)], 0.0),
    ],
    ids=["nothing", "never late", "the first half second", "until the last late one", "one in 201 is not the 99th percentile"],
)
def test_settled_is_when_no_half_second_is_late_any_more(steps: list[tuple[float, float]], after_s: float) -> None:
    assert settled_after_s(steps) == after_s


@pytest.mark.parametrize(
    ("error_s", "told_s", "true"),
    [(0.0, 10.0, True), (2.0, 10.0, True), (-2.0, 10.0, True), (2.1, 10.0, False), (-2.1, 10.0, False), (1.0, 1.0, True)],
)
def test_time_came_true_within_a_fifth_or_a_second_to_both_sides(error_s: float, told_s: float, true: bool) -> None:
    assert was_true(error_s, told_s) is true


def load_run(goodput: float = 100.0, *paid_first_s: float) -> LoadRun:
    return LoadRun(goodput, 200.0, paid_first_s or (0.2,), paid_served=1.0, told=0.0, preemptions=0)


def noisy_run(first_s: float = 0.1, refused: int = 0, fairness: float = 1.0) -> NoisyRun:
    return NoisyRun((first_s,), refused, 10, fairness)


def launch_run(served: int = 100, *told_errors: tuple[float, float]) -> LaunchRun:
    return LaunchRun(100, served, 40, 60, 2, told_errors or ((0.0, 30.0),), 300.0)


def lines(runs: Runs) -> list[str]:
    return [verdict.line() for verdict in verdicts(runs)]


def loads(**by_load: list[LoadRun]) -> dict[float, list[LoadRun]]:
    """At every load, the same where nothing else is said."""
    return {load: by_load.get(f"x{load:g}".replace(".", "_"), [load_run()]) for load in LOADS}


def test_nothing_run_is_nothing_judged_or_shown() -> None:
    assert verdicts(Runs()) == []
    assert tables(Runs()) == ""


def test_goodput_is_compared_with_the_most_at_any_load_and_paid_calls_with_calm_ones() -> None:
    assert lines(Runs(gated=loads(x2=[load_run(95.0)], x10=[load_run(90.0, 0.25)]))) == [
        "HOLDS goodput_at_2x_of_peak 0.95 >=0.95",
        "HOLDS goodput_at_10x_of_peak 0.9 >=0.9",
        "HOLDS paid_p99_first_token_at_10x_of_0.8x 1.25 <=1.25",
    ]
    assert lines(Runs(gated=loads(x5=[load_run(125.0)], x10=[load_run(100.0, 0.26)]))) == [
        "SHORT goodput_at_2x_of_peak 0.8 >=0.95",
        "SHORT goodput_at_10x_of_peak 0.8 >=0.9",
        "SHORT paid_p99_first_token_at_10x_of_0.8x 1.3 <=1.25",
    ]


def test_goodput_is_the_median_of_the_seeds_and_paid_calls_are_pooled() -> None:
    assert lines(Runs(gated=loads(x10=[load_run(0.0, 0.2), load_run(100.0, 0.9), load_run(100.0, 0.2)])))[1:] == [
        "HOLDS goodput_at_10x_of_peak 1 >=0.9",
        "SHORT paid_p99_first_token_at_10x_of_0.8x 4.5 <=1.25",
    ]


def test_step_is_judged_by_when_it_had_settled() -> None:
    assert lines(Runs(steps=[(1.9, LATE_S)])) == ["HOLDS seconds_until_stable_after_step 2 <=2"]
    assert lines(Runs(steps=[(2.1, LATE_S)])) == ["SHORT seconds_until_stable_after_step 2.5 <=2"]


def test_neighbours_are_judged_beside_the_loudest_by_the_worst_seed() -> None:
    noisy = {0.0: [noisy_run()], 1.0: [noisy_run(9.0)], 100.0: [noisy_run(0.1), noisy_run(0.11, 1, 0.98)]}
    assert lines(Runs(noisy=noisy, rivals=[1.0, 0.97])) == [
        "HOLDS others_p99_beside_noisy_neighbour_of_alone 1.1 <=1.1",
        "SHORT jain_of_others 0.98 >=0.99",
        "SHORT others_turned_away 1 <=0",
        "SHORT jain_of_rivals 0.97 >=0.99",
    ]


def test_launch_is_judged_by_who_was_never_served_and_by_what_was_told() -> None:
    launches = {20: [launch_run(100, (0.0, 30.0), (7.0, 30.0))], 1: [launch_run(), launch_run(98)]}
    assert lines(Runs(launches=launches)) == [
        "SHORT launch_1_apps_never_served 2 <=0",
        "HOLDS launch_1_apps_told_the_truth 1 >=1",
        "HOLDS launch_20_apps_never_served 0 <=0",
        "SHORT launch_20_apps_told_the_truth 0.5 >=1",
    ]


def test_tables_show_what_was_run_and_nothing_else() -> None:
    text = tables(Runs(gated=loads(x10=[load_run(1234.0, 0.25)]), bare=loads(x10=[load_run(7.0, math.nan)])))
    row = next(line for line in text.splitlines() if line.startswith("| 10 ×"))
    assert [cell.strip() for cell in row.strip("| ").split("|")] == ["10 ×", "1,234", "200", "250", "250", "100%", "7", "–"]
    assert text.count("## ") == 1
    text = tables(Runs(noisy={0.0: [noisy_run()], 100.0: [noisy_run(refused=3)]}, launches={1: [launch_run()]}))
    assert "| not there " in text
    assert "3 of 10" in text
    assert "100.00%" in text


def test_visits_come_in_order_at_about_the_rate_asked_and_the_same_for_the_same_seed() -> None:
    made = list(visits(mix(50.0), 20.0, 1))
    assert made == list(visits(mix(50.0), 20.0, 1)) != list(visits(mix(50.0), 20.0, 2))
    assert made == sorted(made, key=lambda visit: visit.at)
    assert len(made) == pytest.approx(1000, rel=0.15)
    free = sum(visit.tier is Tier.FREE for visit in made) / len(made)
    assert free == pytest.approx(0.5, abs=0.1)
    assert sum(visit.prompt_tokens for visit in made) / len(made) == pytest.approx(PROMPT_TOKENS, rel=0.15)


def test_step_in_the_rate_begins_at_its_moment() -> None:
    source = Source(Tier.FREE, 10.0, tenants("a", 3))
    made = [visit.at for visit in visits((source,), 20.0, 1, lambda at: 10.0 if at >= 10.0 else 1.0)]
    before = sum(at < 10.0 for at in made)
    assert before == pytest.approx(100, rel=0.4)
    assert len(made) - before == pytest.approx(1000, rel=0.15)
