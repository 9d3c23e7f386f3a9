"""The virtual queue of those who were told when to come again."""

from __future__ import annotations

from gateway.policy.ask import Ask
from gateway.policy.fair_queue import FairQueue, Line
from gateway.policy.limits import Tier
from gateway.policy.promise import MOST_S, Promises


def told() -> tuple[Promises, Line]:
    queue = FairQueue()
    return Promises(queue), queue.enter(Ask("a", Tier.FREE, 1, 1), 0.0)


def test_each_second_is_promised_once() -> None:
    """Where 100 a second drain, 95 are promised: nine calls of cost 10."""
    promises, line = told()
    seconds = []
    for _ in range(27):
        told_s = promises.free_s(3.0, 10.0, 100.0, 0.0)
        promises.make(line, "", told_s, 10.0, 0.0)
        seconds.append(told_s)
    assert seconds == [3] * 9 + [4] * 9 + [5] * 9


def test_gap_before_what_is_promised_is_filled_when_the_rate_rises() -> None:
    promises, line = told()
    for _ in range(9):
        promises.make(line, "", promises.free_s(1.0, 10.0, 10.5, 0.0), 10.0, 0.0)
    assert promises.free_s(1.0, 10.0, 100.0, 0.0) == 1


def test_call_that_takes_longer_than_a_second_takes_as_many_as_it_needs() -> None:
    promises, line = told()
    times = []
    for _ in range(4):
        times.append(promises.free_s(1.0, 500.0, 100.0, 0.0))
        promises.make(line, "", times[-1], 500.0, 0.0)
    assert times == [1, 6, 12, 17]  # each is 5.3 s of what may be promised


def test_nothing_beyond_the_horizon() -> None:
    promises, _ = told()
    assert promises.free_s(10_000.0, 1.0, 100.0, 0.0) == MOST_S


def test_only_the_caller_who_was_told_takes_it_up_and_not_too_early() -> None:
    promises, line = told()
    promises.make(line, "x", 10.0, 1.0, 0.0)
    assert not promises.take_up(line, "y", 10.0)
    assert not promises.take_up(line, "x", 5.0)
    assert promises.take_up(line, "x", 10.0)
    assert not promises.take_up(line, "x", 10.0)
    assert promises.waiting == 0


def test_unknown_caller_may_be_any_of_the_tenants() -> None:
    promises, line = told()
    promises.make(line, "", 10.0, 1.0, 0.0)
    assert promises.take_up(line, "", 10.0)


def test_promise_that_nobody_takes_up_lapses_and_counts_for_less() -> None:
    promises, line = told()
    for _ in range(100):
        promises.make(line, "", 10.0, 1.0, 0.0)
    promises.lapse(13.0)
    assert (promises.waiting, line.promised) == (0, 0.0)
    assert promises.kept_share < 0.3
