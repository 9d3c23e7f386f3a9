"""Money is exact to the token, whatever the counts; energy is what the figures say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.cost import NO_RATES, Energy, Price, Rates

PRICE = Price(prompt=300, cached=30, completion=1200, reasoning=900)
tokens = st.integers(0, 10**9)


def test_each_kind_of_token_has_its_price() -> None:
    # 60 computed, 40 cached, 15 said, 5 thought
    assert PRICE.cost_ukrw(100, 40, 20, 5) == 60 * 300 + 40 * 30 + 15 * 1200 + 5 * 900


def test_million_tokens_cost_what_the_table_says() -> None:
    assert PRICE.cost_ukrw(1_000_000, 0, 0, 0) == 300 * 1_000_000, "300 KRW in millionths"


@given(tokens, tokens, tokens, tokens)
def test_cost_is_never_negative_and_never_more_than_without_a_cache(
    prompt: int, cached: int, completion: int, reasoning: int
) -> None:
    cost = PRICE.cost_ukrw(prompt, cached, completion, reasoning)
    assert 0 <= cost <= prompt * 300 + completion * 1200


@given(st.lists(st.tuples(tokens, tokens), max_size=20))
def test_cost_of_many_calls_is_the_cost_of_their_tokens(calls: list[tuple[int, int]]) -> None:
    one_by_one = sum(PRICE.cost_ukrw(prompt, 0, completion, 0) for prompt, completion in calls)
    assert one_by_one == PRICE.cost_ukrw(sum(prompt for prompt, _ in calls), 0, sum(completion for _, completion in calls), 0)


def test_energy_is_of_what_was_computed() -> None:
    energy = Energy(prompt_wh=0.5, completion_wh=2.0)
    assert energy.estimate_wh(3000, 1000, 500) == pytest.approx(2 * 0.5 + 0.5 * 2.0)
    assert energy.estimate_wh(10, 1000, 0) == 0.0


def test_models_without_rates_of_their_own_have_the_defaults() -> None:
    rates = Rates({"exaone": PRICE}, {"exaone": Energy(1.0, 2.0)}, price=Price(prompt=7))
    assert (rates.price("exaone"), rates.price("solar")) == (PRICE, Price(prompt=7))
    assert (rates.energy("exaone"), rates.energy("solar")) == (Energy(1.0, 2.0), Energy())
    assert NO_RATES.price("exaone").cost_ukrw(100, 0, 100, 0) == 0
