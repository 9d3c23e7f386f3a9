"""How long prompts and answers are in the simulator."""

from dataclasses import dataclass
from random import Random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.simulator.sizes import Independent, Lognormal, Sampled


@dataclass(frozen=True)
class Call:
    prompt_tokens: int
    output_tokens: int


def seeded(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - a simulation


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_lognormal_sizes_have_the_mean_asked_for(seed: int) -> None:
    random, law = seeded(seed), Lognormal(600.0, 0.8, most=1_000_000)
    assert fmean(law.draw(random) for _ in range(40_000)) == pytest.approx(600.0, rel=0.03)


@given(
    st.floats(0.1, 1e6),
    st.floats(0, 50),
    st.integers(1, 1000),
    st.integers(0, 10_000),
    st.integers(0, 2**32),
)
def test_no_size_is_outside_its_bounds(mean: float, spread: float, least: int, more: int, seed: int) -> None:
    law = Lognormal(mean, spread, most=least + more, least=least)
    random = seeded(seed)
    assert all(least <= law.draw(random) <= least + more for _ in range(20))


def test_without_spread_all_are_of_the_mean_size() -> None:
    sizes = Independent(Lognormal(300.0, 0.0, most=1000), Lognormal(50.0, 0.0, most=1000))
    assert {sizes.draw(seeded(seed)) for seed in range(10)} == {(300, 50)}


@pytest.mark.parametrize(
    ("mean", "spread", "least", "most"), [(0.0, 1.0, 1, 9), (5.0, -1.0, 1, 9), (5.0, 1.0, 0, 9), (5.0, 1.0, 9, 8)]
)
def test_bounds_that_mean_nothing_are_an_error(mean: float, spread: float, least: int, most: int) -> None:
    with pytest.raises(ValueError, match="sizes need mean > 0"):
        Lognormal(mean, spread, most=most, least=least)


def test_a_traces_prompts_keep_their_answers() -> None:
    calls = [Call(10, 900), Call(5000, 3)]
    sizes, random = Sampled(calls), seeded(1)
    assert {sizes.draw(random) for _ in range(50)} == {(10, 900), (5000, 3)}
