"""Tenants' limits in virtual time."""

from __future__ import annotations

import math

from gateway.policy.account import Taken
from gateway.policy.limits import NO_LIMITS, Limits
from serving.simulator.purse import Purses


def test_tenant_without_limits_has_no_purse() -> None:
    assert Purses({"app": NO_LIMITS}, 0.0).take("app", 10**9, 0.0) is None


def test_tokens_are_taken_before_and_settled_after() -> None:
    purses = Purses({"app": Limits(tokens_per_day=1000)}, 0.0)
    first = purses.take("app", 800, 1.0)
    assert isinstance(first, Taken)
    assert purses.take("app", 300, 2.0) == 86_398.0
    first.settle(1, 500, 0)
    assert isinstance(purses.take("app", 300, 3.0), Taken)


def test_new_window_begins_full() -> None:
    purses = Purses({"app": Limits(requests_per_minute=1)}, 0.0)
    assert isinstance(purses.take("app", 1, 0.0), Taken)
    wait_s = purses.take("app", 1, 1.0)
    assert isinstance(wait_s, float)
    assert isinstance(purses.take("app", 1, 1.0 + wait_s), Taken)


def test_places_are_told_by_how_long_calls_last() -> None:
    purses = Purses({"app": Limits(concurrent=1)}, 0.0)
    taken = purses.take("app", 1, 0.0)
    assert isinstance(taken, Taken)
    purses.lasted("app", 7.5)
    assert purses.take("app", 1, 1.0) == 8.0
    taken.settle(1, 1, 0)
    assert isinstance(purses.take("app", 1, 2.0), Taken)


def test_month_that_is_used_up_is_not_waited_for() -> None:
    purses = Purses({"app": Limits(tokens_per_month=10)}, 0.0)
    assert isinstance(purses.take("app", 10, 0.0), Taken)
    assert purses.take("app", 10, 1.0) == math.inf
