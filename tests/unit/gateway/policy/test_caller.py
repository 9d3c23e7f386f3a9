"""Who comes again is known by what he sends, from half a second before he was told to until some time after."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.ask import Ask
from gateway.policy.caller import STRANGER, Callers
from gateway.policy.fair_queue import FairQueue
from gateway.policy.limits import Tier
from gateway.policy.promise import Promises


def test_who_sends_the_same_about_when_he_was_told_is_known_once() -> None:
    callers = Callers()
    name = callers.name()
    callers.tell(7, name, 10.0, 100.0)
    assert callers.expected
    assert callers.come(8, 110.0) == STRANGER
    assert callers.come(7, 109.0) == STRANGER
    assert callers.come(7, 109.6) == name
    assert callers.come(7, 110.0) == STRANGER


def test_as_many_alike_as_were_told_have_their_turn_the_first_due_first() -> None:
    callers = Callers()
    names = [callers.name() for _ in range(3)]
    for name, told_s in zip(names, (30.0, 20.0, 22.0), strict=True):
        callers.tell(7, name, told_s, 0.0)
    assert [callers.come(7, 22.0) for _ in range(3)] == [names[1], names[2], STRANGER]
    assert callers.come(7, 30.0) == names[0]


@pytest.mark.parametrize(("told_s", "known_s"), [(4.0, 5.9), (40.0, 49.9)])
def test_nobody_is_expected_long_after_he_was_to_come(told_s: float, known_s: float) -> None:
    callers, late = Callers(), Callers()
    for each in (callers, late):
        each.tell(7, each.name(), told_s, 0.0)
    assert callers.come(7, known_s) != STRANGER
    assert late.come(7, known_s + 0.2) == STRANGER
    assert not late.expected


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 20), st.sampled_from([0, 0, 1, 5, 40])), max_size=60))
def test_whoever_is_known_here_has_a_promise_that_is_kept_and_a_stranger_has_none(
    course: list[tuple[int, float, int]],
) -> None:
    """This memory and the waiting room's, which does not know why a name is what it is, agree."""
    queue, callers, now = FairQueue(), Callers(), 0.0
    promises, line = Promises(queue), queue.enter(Ask("a", Tier.FREE, 1, 1), 0.0)
    for like, later_s, told_s in course:
        now += later_s
        promises.lapse(now)
        name = callers.come(like, now)
        assert promises.take_up(line, name, now) == (name != STRANGER)
        if told_s:
            new = callers.name()
            promises.make(line, new, told_s, 1.0, now)
            callers.tell(like, new, told_s, now)
    promises.lapse(now + 100.0)
    callers.come(0, now + 100.0)
    assert (promises.waiting, callers.expected) == (0, False)
