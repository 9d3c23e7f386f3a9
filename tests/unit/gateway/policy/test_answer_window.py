"""How much the engines are sent before they have answered."""

from __future__ import annotations

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.answer_window import AnswerWindow
from gateway.policy.ask import Ask, Ticket
from gateway.policy.fair_queue import Call, Line
from gateway.policy.limits import Tier

TARGET_S = 2.0
numbers = count(1)


def send(window: AnswerWindow, now: float, prompt_tokens: int = 500) -> Call:
    call = Call(Ticket(next(numbers)), Ask("a", Tier.FREE, prompt_tokens, 1), 2, Line("a", 1.0), now)
    call.started = now
    window.sent(call, now)
    return call


def rounds(window: AnswerWindow, took_s: float, number: int, now: float = 0.0) -> float:
    """Each time as much as the window lets, all answered after so long."""
    for _ in range(number):
        calls = []
        while window.has_room(500):
            calls.append(send(window, now))
        now += took_s
        for call in calls:
            window.answered(call, took_s, now)
    return now


def test_grows_while_answers_come_in_time_and_shrinks_when_they_do_not() -> None:
    window = AnswerWindow(TARGET_S)
    window.resize(1)
    first = window.tokens
    now = rounds(window, 0.1, 6)
    grown = window.tokens
    assert grown > 4 * first
    rounds(window, 1.8, 12, now)
    assert window.tokens < grown / 3


def test_one_late_answer_hardly_moves_it() -> None:
    window = AnswerWindow(TARGET_S)
    window.resize(1)
    now = rounds(window, 0.1, 6)
    before = window.tokens
    calls = [send(window, now) for _ in range(20)]
    for index, call in enumerate(calls):
        window.answered(call, 1.8 if index == 19 else 0.1, now + 1.8)
    assert window.tokens > 0.9 * before


def test_long_prompt_is_late_on_its_own_account() -> None:
    window = AnswerWindow(TARGET_S)
    window.resize(1)
    before = window.tokens
    window.answered(send(window, 0.0, 30_000), 4.0, 4.0)
    assert window.tokens >= before


def test_each_replica_may_always_have_one_call() -> None:
    window = AnswerWindow(TARGET_S)
    window.resize(2)
    rounds(window, 1.9, 60)
    assert window.has_room(1_000_000)
    send(window, 200.0, 1_000_000)
    assert window.has_room(1_000_000)
    send(window, 200.0, 1_000_000)
    assert not window.has_room(1)


def test_new_replica_is_trusted_with_what_one_has_proven_to_bear() -> None:
    window = AnswerWindow(TARGET_S)
    window.resize(1)
    rounds(window, 0.1, 5)
    before = window.tokens
    window.resize(3)
    assert window.tokens == 3 * before


def test_calls_that_never_say_when_they_are_answered_do_not_hold_it_closed() -> None:
    window = AnswerWindow(TARGET_S)
    window.resize(1)
    while window.has_room(500):
        send(window, 0.0)
    window.forget(20.0)
    assert window.has_room(500)


def test_asking_what_it_would_hold_is_no_demand_for_which_it_grows() -> None:
    window = AnswerWindow(TARGET_S)
    window.resize(1)
    before = window.tokens
    calls = [send(window, 0.0), send(window, 0.0)]
    assert not window.would_hold(before)
    for call in calls:
        window.answered(call, 0.1, 0.1)
    assert window.tokens == before
    calls = [send(window, 0.2), send(window, 0.2)]
    assert not window.has_room(before)
    for call in calls:
        window.answered(call, 0.1, 0.3)
    assert window.tokens > before


def test_part_of_it_is_left_for_others() -> None:
    window = AnswerWindow(TARGET_S)
    window.resize(1)
    while window.has_room(100, 0.5):
        send(window, 0.0, 100)
    assert sum(window.unanswered) <= window.tokens / 2
    assert window.has_room(500)


def test_what_is_not_answered_is_known_by_tier() -> None:
    window = AnswerWindow(TARGET_S)
    window.resize(1)
    call = send(window, 0.0, 300)
    assert window.unanswered == [0, 0, 300, 0]
    window.gone(call)
    window.gone(call)
    assert window.unanswered == [0, 0, 0, 0]


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 5000)), max_size=40))
def test_nothing_is_left_when_all_are_answered(answers: list[tuple[float, int]]) -> None:
    window = AnswerWindow(TARGET_S)
    window.resize(1)
    calls = [(send(window, 0.0, prompt), took_s) for took_s, prompt in answers]
    for call, took_s in calls:
        window.answered(call, took_s, took_s)
    assert window.has_room(window.tokens)
