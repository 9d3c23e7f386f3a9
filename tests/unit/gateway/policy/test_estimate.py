"""What calls will use, as learned: at most, for limits; on average, for the waiting room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.estimate import Habit, Habits


def habit(*seen: tuple[int, int, int], n: int = 1) -> Habit:
    """That has seen calls of so many bytes, prompt tokens, answer tokens."""
    made = Habit()
    for prompt_bytes, prompt_tokens, answer_tokens in seen:
        made.see(prompt_bytes, prompt_tokens, answer_tokens, n)
    return made


def test_before_anything_is_learned_max_tokens_only_caps() -> None:
    new = habit((300, 100, 5000), (300, 100, 5000))
    assert (new.prompt_mean(400), new.prompt_bound(400)) == (100, 656)
    assert [new.answer_mean(asked, 2) for asked in (None, 100_000, 10)] == [512, 512, 20]


@pytest.mark.parametrize("asked", [None, 100_000])
def test_client_that_names_no_allowance_or_a_huge_one_weighs_what_its_answers_are(asked: int | None) -> None:
    known = habit((300, 100, 20), (600, 200, 40), (900, 300, 30))
    assert (known.prompt_mean(3000), known.answer_mean(asked, 1)) == (1000, 31)
    assert known.answer_mean(asked, 4) == 4 * 31
    assert known.answer_mean(10, 1) == 10


@given(
    st.lists(st.tuples(st.integers(1, 9999), st.integers(1, 9999), st.integers(0, 9999)), max_size=20),
    st.integers(0, 9999),
    st.none() | st.integers(0, 9999),
    st.integers(1, 8),
)
def test_mean_is_never_above_the_bound(seen: list[tuple[int, int, int]], prompt_bytes: int, asked: int | None, n: int) -> None:
    known = habit(*seen)
    assert 0 <= known.answer_mean(asked, n) <= known.answer_allowance(asked, n)
    assert asked is None or known.answer_mean(asked, n) <= n * asked
    if all(tokens <= size for size, tokens, _ in seen):
        assert 0 <= known.prompt_mean(prompt_bytes) <= known.prompt_bound(prompt_bytes) + 1


def test_tenants_and_models_have_habits_of_their_own_and_the_oldest_are_forgotten() -> None:
    habits = Habits(most=4)
    first = habits.of("a", "m")
    assert habits.of("a", "m") is first
    assert habits.of("a", "other") is not first
    assert habits.of("b", "m") is not first
    for number in range(4):
        habits.of(str(number), "m")
    assert len(habits) <= 4
    assert habits.of("a", "m") is not first
