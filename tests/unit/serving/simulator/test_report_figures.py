"""A run's figures: each call counted once, minutes judged by who waited since he came first, windows that add up."""

import json
import math
from dataclasses import asdict, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.simulator.report.course import Course, course
from serving.simulator.report.document import FORMAT, document
from serving.simulator.report.summary import CallFigures, FleetFigures, percentile, summary
from serving.simulator.result import End, ModelSeries, Result
from tests.unit.serving.simulator.made_result import Row, busy_result, made_result


def calls_of(*rows: Row) -> CallFigures:
    return summary(made_result(rows)).total.calls


def test_who_had_to_come_again_has_waited_since_he_came_first() -> None:
    figures = calls_of(Row(10.0, wait_s=40.0, again_s=39.0, turned=1))
    assert (figures.served, figures.in_time, figures.outside, figures.refusals) == (1, 0, 1, 1)
    assert figures.first_token_s == pytest.approx((1.0, 1.0, 1.0))
    assert figures.wait_s == pytest.approx((40.0, 40.0, 40.0))


def test_a_minute_is_outside_when_more_than_a_hundredth_of_its_calls_were_late() -> None:
    good = [Row(at / 2, wait_s=0.5) for at in range(99)]
    assert calls_of(*good, Row(59.0, wait_s=3.0)).outside == 0
    assert calls_of(*good[1:], Row(59.0, wait_s=3.0), Row(59.5, end=End.TURNED_AWAY)).outside == 1
    assert calls_of(*good, Row(59.0, wait_s=3.0), Row(60.5, end=End.FAILED)).outside == 1
    assert calls_of(*good, Row(59.0, end=End.TURNED_AWAY), Row(60.5, wait_s=1.0)).minutes == 2


def test_calls_without_a_target_spoil_no_minute() -> None:
    figures = calls_of(Row(5.0, wait_s=500.0, target_s=math.inf), Row(65.0, end=End.TURNED_AWAY, target_s=math.inf))
    assert (figures.minutes, figures.outside, figures.in_time) == (0, 0, 1)


def test_a_call_that_cannot_be_judged_yet_counts_in_no_minute() -> None:
    young, old = Row(599.0, end=End.UNDER_WAY), Row(590.0, end=End.UNDER_WAY)
    streams = Row(560.0, wait_s=0.3, end=End.UNDER_WAY)
    assert calls_of(young).minutes == 0
    assert calls_of(young, old).outside == 1
    assert (calls_of(streams).minutes, calls_of(streams).outside, calls_of(streams).under_way) == (1, 0, 1)


def test_percentiles_are_figures_that_were_seen() -> None:
    ordered = [float(value) for value in range(1, 101)]
    assert [percentile(ordered, share) for share in (0.01, 0.5, 0.9, 0.99, 1.0)] == [1.0, 50.0, 90.0, 99.0, 100.0]
    assert math.isnan(percentile([], 0.5))
    assert percentile([3.0], 0.01) == 3.0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_models_and_tiers_add_up_to_all(seed: int) -> None:
    figures = summary(busy_result(seed))
    for parts in ([model.calls for model in figures.models], [calls for _, calls in figures.tiers]):
        for name in ("came", "served", "in_time", "turned_away", "failed", "under_way", "refusals", "tokens"):
            assert sum(getattr(part, name) for part in parts) == getattr(figures.total.calls, name)
    total = figures.total.calls
    assert total.came == total.served + total.turned_away + total.failed + total.under_way
    assert sum(model.fleet.gpu_hours for model in figures.models) == pytest.approx(figures.total.fleet.gpu_hours)


def test_a_run_without_calls_or_moments_has_figures_too() -> None:
    nothing = Result("nothing", 1, 60.0, ("solar",), series={"solar": ModelSeries()})
    assert summary(nothing).total.calls.came == 0
    assert summary(nothing).total.fleet == FleetFigures(0.0, 0.0, 0, 0, 0, 0, 0, 0)
    assert set(course(nothing, "solar").waiting) == {0}
    assert json.loads(document(nothing))["total"]["calls"]["first_token_s"] == {"p50": None, "p90": None, "p99": None}


def test_windows_show_the_longest_queue_and_the_latest_replicas() -> None:
    result = made_result([], duration_s=60.0)
    series = result.series["solar"]
    series.waiting[:3] = type(series.waiting)("I", [1, 9, 2])
    series.ready[:3] = type(series.ready)("I", [1, 2, 3])
    at = course(result, "solar", window_s=30.0)
    assert at.waiting == (9, 0)
    assert at.ready == (0, 0)
    assert course(result, "solar", window_s=20.0).ready == (3, 0, 0)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("window_s", [7.0, 60.0, None])
def test_windows_add_up_to_the_whole_run(seed: int, window_s: float | None) -> None:
    result = busy_result(seed)
    at = course(result, None, window_s)
    series = result.series.values()
    assert sum(at.refusals) == sum(one.turned_away[-1] + one.over_limit[-1] for one in series)
    assert sum(at.failures) == sum(one.failed[-1] for one in series)
    assert at.gpu_hours[-1] == pytest.approx(summary(result).total.fleet.gpu_hours)
    assert max(at.waiting) == summary(result).total.fleet.waiting_most
    assert at.targets_s == (2.0,)


@given(st.floats(1.0, 4e7))
def test_there_are_few_windows_however_long_the_run(duration_s: float) -> None:
    at = course(Result("long", 1, duration_s, ("solar",)))
    assert 1 <= len(at) <= 300
    assert len(at) * at.window_s >= duration_s * (1 - 1e-9)


def test_json_has_the_documented_keys_and_nothing_that_json_does_not_know() -> None:
    result = busy_result(1)
    text = document(result)
    told = json.loads(text, parse_constant=pytest.fail)
    assert text == document(result)
    assert list(told) == [
        *("format", "scenario", "seed", "duration_s", "fingerprint"),
        *("total", "models", "tiers", "course"),
    ]
    assert told["format"] == FORMAT == "daemun-simulation/1"
    assert told["fingerprint"] == result.fingerprint()
    assert list(told["models"]) == list(told["course"]) == ["solar", "kanana"]
    assert list(told["total"]["calls"]) == list(told["tiers"]["paid"]) == [each.name for each in fields(CallFigures)]
    assert list(told["total"]["fleet"]) == [each.name for each in fields(FleetFigures)]
    assert list(told["course"]["solar"]) == [each.name for each in fields(Course)]
    assert told["total"]["calls"]["in_time"] == summary(result).total.calls.in_time
    assert asdict(summary(result).total.fleet)["ready_most"] == told["total"]["fleet"]["ready_most"]
