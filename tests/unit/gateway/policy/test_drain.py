"""Rates that are measured."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.drain import Drain, Pace


@given(st.floats(0.1, 50), st.floats(1, 5))
def test_steady_amounts_are_measured_as_they_are(per_s: float, amount: float) -> None:
    pace, number = Pace(memory_s=10.0), 0
    while number / per_s < 60.0:
        pace.add(amount, number / per_s)
        number += 1
    assert pace.per_s(60.0) == pytest.approx(per_s * amount, rel=0.1 if per_s > 1 else 1.0)


@given(st.lists(st.floats(0, 1e6), max_size=20), st.floats(0, 1e9))
def test_pace_is_finite_and_falls_while_nothing_comes(gaps: list[float], idle_s: float) -> None:
    pace, now = Pace(10.0), 0.0
    for gap in gaps:
        now += gap
        pace.add(1.0, now)
    measured, later = pace.per_s(now), pace.per_s(now + idle_s)
    assert 0.0 <= later <= measured * (1 + 1e-9)
    assert math.isfinite(measured)


def run(drain: Drain, calls: int, each_s: float, until: float, *, is_full: bool = True, since: float = 0.0) -> None:
    """So many calls at once, of cost 100 and 50 tokens, each of which takes so long."""
    now = since
    while now < until:
        now += each_s / calls
        drain.passed(calls, 50 * calls, is_full, now)
        drain.left(100.0)


def test_rate_of_full_replicas_is_that_of_departures() -> None:
    drain = Drain()
    run(drain, 10, 5.0, 60.0)
    assert drain.per_s(10, 0, 100.0) == pytest.approx(200.0, rel=0.05)
    assert drain.per_s(20, 0, 100.0) == pytest.approx(400.0, rel=0.05)  # twice the fleet
    assert drain.per_s(20, 500, 100.0) == pytest.approx(200.0, rel=0.05)  # of which the KV cache is full


def test_before_any_has_left_the_rate_is_not_known_unless_that_takes_long() -> None:
    drain = Drain()
    assert drain.per_s(10, 0, 100.0) == 0.0
    drain.passed(0, 0, False, 100.0)
    drain.passed(10, 500, True, 102.0)
    assert drain.per_s(10, 0, 100.0) == 0.0
    drain.passed(10, 500, True, 112.0)
    assert 0.0 < drain.per_s(10, 0, 100.0) < 200.0  # one is taken to leave now


@given(st.integers(3, 64), st.floats(1, 10), st.floats(0.05, 0.95))
def test_what_running_calls_have_done_tells_the_rate_before_any_has_left(calls: int, each_s: float, part: float) -> None:
    drain = Drain()
    drain.passed(calls, 50 * calls, True, part * each_s)
    for _ in range(calls):
        drain.worked(100.0 * part)
    if part >= 0.26:  # a quarter
        assert drain.per_s(calls, 0, 100.0) == pytest.approx(100.0 * calls / each_s, rel=0.06)
    for _ in range(calls):
        drain.left(100.0 - 100.0 * part)
    assert drain.per_s(calls, 0, 100.0) == pytest.approx(100.0 * calls / (part * each_s), rel=0.06)


def test_what_they_have_done_is_asked_for_until_enough_have_left() -> None:
    drain = Drain()
    assert drain.is_new
    run(drain, 10, 5.0, 60.0)
    assert not drain.is_new


def test_once_full_times_with_little_to_do_do_not_count() -> None:
    drain = Drain()
    run(drain, 10, 5.0, 60.0)
    run(drain, 2, 1.0, 120.0, is_full=False, since=60.0)
    assert drain.per_s(10, 0, 100.0) == pytest.approx(200.0, rel=0.05)
