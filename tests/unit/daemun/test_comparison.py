"""What is said of two versions: true where they are the same, true where they are not, and nothing where nobody could know."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemun.comparison import (
    Aspect,
    Interval,
    Sample,
    Verdict,
    judge,
    mean,
    mean_change,
    quantile,
    quantile_change,
    sample,
    share,
    share_change,
)
from gateway.policy.cost import Price
from tests.entries import entry

PRICE = Price(prompt=100, cached=10, completion=400, reasoning=400)


def calls(count: int, seed: int, *, slower: float = 1.0, failing: float = 0.01, longer: float = 1.0) -> Sample:
    """Of a version whose first tokens and lengths vary as those of real ones do: by a factor, now and then by a large one."""
    chance = random.Random(seed)  # noqa: S311 - a sample
    entries = []
    for number in range(count):
        first_s = slower * chance.lognormvariate(-1.0, 0.6)
        tokens = max(2, int(longer * chance.lognormvariate(4.5, 0.8)))
        failed = chance.random() < failing
        entries.append(
            entry(
                number,
                outcome="failed" if failed else "completed",
                queue_s=0.5,
                first_byte_s=0.5 + first_s,
                duration_s=0.5 + first_s + slower * tokens * chance.uniform(0.02, 0.03),
                completion_tokens=tokens,
            )
        )
    return sample(entries, PRICE)


def bounds(found: Interval | None) -> list[float]:
    assert found is not None
    return [found.low, found.high]


def verdicts(model: Sample, candidate: Sample) -> dict[Aspect, Verdict]:
    return {one.aspect: one.verdict for one in judge(model, candidate)}


def test_sample_tells_what_a_version_did_and_leaves_out_what_it_did_not() -> None:
    found = sample(
        [
            entry(1, queue_s=0.1, first_byte_s=0.6, duration_s=1.6, prompt_tokens=10, cached_tokens=0, completion_tokens=11),
            entry(2, stream=False),
            entry(3, outcome="aborted"),
            entry(4, outcome="failed", first_byte_s=None),
            entry(5, outcome="rejected", queue_s=None, first_byte_s=None),
            entry(6, first_byte_s=1.25, duration_s=1.25),
        ],
        PRICE,
    )
    assert (found.completed, found.aborted, found.failed, found.rejected, found.worked) == (3, 1, 1, 1, 5)
    assert found.first_token_s == pytest.approx([0.5, 1.24])
    assert found.tokens_per_s == pytest.approx([10.0]), "what comes at one stroke has no speed"
    assert found.output_tokens == [11, 200, 200]
    assert found.cost_krw[0] == pytest.approx((10 * 100 + 11 * 400) / 1e6)


def test_share_has_wilsons_interval() -> None:
    """As published: Newcombe 1998 (of single proportions), 81 of 263 and 0 of 20."""
    assert bounds(share(81, 263)) == pytest.approx([0.2553, 0.3662], abs=1e-4)
    assert bounds(share(0, 20)) == pytest.approx([0.0, 0.1611], abs=1e-4)
    assert share(0, 0) is None


def test_difference_of_shares_has_newcombes_interval() -> None:
    """As published: Newcombe 1998, 56/70 less 48/80, method 10."""
    found = share_change((48, 80), (56, 70), 0.95)
    assert found is not None
    assert found.value == pytest.approx(0.2)
    assert bounds(found) == pytest.approx([0.0524, 0.3339], abs=1e-4)
    assert share_change((0, 0), (1, 2)) is None


@given(st.integers(0, 300), st.integers(1, 300))
def test_shares_interval_holds_the_share_and_stays_within_bounds(part: int, more: int) -> None:
    found = share(part, part + more)
    assert found is not None
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_bootstrap_of_a_quantile_is_the_one_with_real_resamples() -> None:
    """Drawn in one go from the order statistic's distribution, or resampled value by value: the same interval."""
    chance = random.Random(1)  # noqa: S311 - a sample
    values = sorted(chance.expovariate(1.0) for _ in range(400))
    found = quantile(values, 0.5)
    assert found is not None
    medians = sorted(sorted(chance.choices(values, k=400))[199] for _ in range(2000))
    assert found.low == pytest.approx(medians[50], abs=0.02)
    assert found.high == pytest.approx(medians[-51], abs=0.02)
    assert found.value == values[199]
    assert quantile(values, 0.5) == found, "one ledger, one report"


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """95 of 100, of which 200 trials may miss 5 % give or take four standard deviations."""
    hits = {"median": 0, "mean": 0}
    for seed in range(200):
        chance = random.Random(seed)  # noqa: S311 - a sample
        values = sorted(chance.expovariate(1.0) for _ in range(200))
        for name, found, truth in (("median", quantile(values, 0.5), 0.6931), ("mean", mean(values), 1.0)):
            assert found is not None
            hits[name] += found.low <= truth <= found.high
    assert min(hits.values()) >= 200 * 0.95 - 4 * (200 * 0.95 * 0.05) ** 0.5


def test_of_too_few_values_nothing_is_told() -> None:
    few, some = [1.0] * 49, [1.0] * 99
    assert (quantile(few, 0.5), mean(few), quantile(some, 0.99)) == (None, None, None)
    assert quantile_change(some, few, 0.5) is mean_change(few, some) is quantile_change(some, some, 0.99) is None
    assert quantile_change([0.0] * 99, some, 0.5) is mean_change([0.0] * 99, some) is None


def test_same_values_have_no_difference() -> None:
    values = [float(number) for number in range(1, 1000)]
    for found in (mean_change(values, values), quantile_change(values, values, 0.5)):
        low, high = bounds(found)
        assert low < 0.0 < high


def test_nothing_is_judged_before_there_are_a_hundred_calls_of_each() -> None:
    for model, candidate in ((calls(99, 1), calls(500, 2, slower=3)), (calls(500, 1), calls(99, 2, slower=3))):
        assert set(verdicts(model, candidate).values()) == {Verdict.NOT_ENOUGH}


def test_tail_is_not_judged_of_few_calls() -> None:
    assert verdicts(calls(400, 1), calls(400, 2))[Aspect.TAIL] is Verdict.NOT_ENOUGH
    assert verdicts(calls(700, 1), calls(700, 2))[Aspect.TAIL] is Verdict.SAME


def test_version_beside_itself_is_seldom_called_different() -> None:
    """Once in twenty reports, by what they say; of 20, more than five would be four standard deviations off."""
    alarms = 0
    for seed in range(20):
        judged = verdicts(calls(600, 2 * seed), calls(600, 2 * seed + 1))
        alarms += any(verdict is not Verdict.SAME for verdict in judged.values())
    assert alarms <= 5


def test_slower_candidate_is_called_so() -> None:
    judged = verdicts(calls(3000, 1), calls(3000, 2, slower=1.4))
    assert judged == {
        Aspect.ERRORS: Verdict.SAME,
        Aspect.FIRST: Verdict.WORSE,
        Aspect.TAIL: Verdict.WORSE,
        Aspect.SPEED: Verdict.WORSE,
        Aspect.OUTPUT: Verdict.SAME,
    }


def test_faster_candidate_that_fails_and_talks_more_is_called_so() -> None:
    judged = verdicts(calls(3000, 1), calls(3000, 2, slower=0.7, failing=0.06, longer=1.3))
    assert judged == {
        Aspect.ERRORS: Verdict.WORSE,
        Aspect.FIRST: Verdict.BETTER,
        Aspect.TAIL: Verdict.BETTER,
        Aspect.SPEED: Verdict.BETTER,
        Aspect.OUTPUT: Verdict.OTHER,
    }


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.5, 2.0))
def test_change_of_a_change_of_scale_is_that_scale(seed: int, scale: float) -> None:
    chance = random.Random(seed)  # noqa: S311 - a sample
    values = sorted(chance.lognormvariate(0, 0.5) for _ in range(200))
    scaled = [scale * value for value in values]
    for found in (quantile_change(values, scaled, 0.5), mean_change(values, scaled)):
        assert found is not None
        assert found.value == pytest.approx(scale - 1)
        assert found.low <= found.value <= found.high
