"""When calls come in the simulator: as often, as unevenly and in the order that was asked for, the same for the same seed."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from statistics import fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.simulator.arrivals import gamma, korean_day, korean_peak, poisson, replay, surge, varying

HOUR, DAY = 3600.0, 86_400.0


@dataclass(frozen=True)
class Call:
    at: float
    name: int = 0


def seeded(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - a simulation


def gaps(times: Iterable[float]) -> list[float]:
    return [after - before for before, after in pairwise(times)]


def in_each(times: Iterable[float], width: float, number: int) -> list[int]:
    counts = [0] * number
    for at in times:
        counts[int(at / width)] += 1
    return counts


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("variation", [0.5, 1.0, 3.0])
def test_rate_and_coefficient_of_variation_are_those_asked_for(seed: int, variation: float) -> None:
    times = list(gamma(20.0, variation, 5000.0, seeded(seed)))
    # The count of a renewal process spreads by variation * sqrt(mean); four of that.
    assert len(times) == pytest.approx(100_000, abs=4 * variation * math.sqrt(100_000))
    assert pstdev(gaps(times)) / fmean(gaps(times)) == pytest.approx(variation, rel=0.05)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_calls_by_chance_vary_from_second_to_second_as_much_as_their_number(seed: int) -> None:
    counts = in_each(poisson(50.0, 2000.0, seeded(seed)), 1.0, 2000)
    assert pstdev(counts) ** 2 / fmean(counts) == pytest.approx(1.0, abs=0.15)


def test_bursts_vary_more_from_second_to_second() -> None:
    counts = in_each(gamma(50.0, 4.0, 2000.0, seeded(1)), 1.0, 2000)
    assert pstdev(counts) ** 2 / fmean(counts) > 8.0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_hour_of_a_korean_day_brings_its_part_of_the_calls(seed: int) -> None:
    rate = korean_day(2.0)
    counts = in_each(varying(rate, korean_peak(2.0), DAY, seeded(seed)), HOUR, 24)
    for hour, count in enumerate(counts):
        mean = fmean(rate(hour * HOUR + second) for second in range(0, 3600, 10)) * HOUR
        assert count == pytest.approx(mean, abs=4.5 * math.sqrt(mean))


def test_a_korean_day_has_the_mean_asked_for_and_its_peak_in_the_evening() -> None:
    rate = korean_day(7.0)
    values = [rate(at) for at in range(0, int(DAY), 60)]
    assert fmean(values) == pytest.approx(7.0)
    assert max(values) == pytest.approx(korean_peak(7.0)) == rate(22 * HOUR)
    assert min(values) == rate(4 * HOUR)


def test_a_day_may_begin_at_any_time() -> None:
    assert korean_day(7.0, clock_s=20 * HOUR)(2 * HOUR) == korean_day(7.0)(22 * HOUR) == korean_day(7.0)(46 * HOUR)


def test_a_rate_above_the_highest_told_is_an_error() -> None:
    with pytest.raises(ValueError, match="the rate is 3 calls a second"):
        list(varying(lambda _: 3.0, 2.0, 100.0, seeded(1)))


@pytest.mark.parametrize(("per_s", "variation"), [(0.0, 1.0), (-1.0, 1.0), (1.0, 0.0), (math.inf, 1.0), (math.nan, 1.0)])
def test_a_rate_or_variation_that_means_nothing_is_an_error_at_once(per_s: float, variation: float) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        gamma(per_s, variation, 10.0, seeded(1))


def test_all_users_of_a_launch_day_come_once_within_the_rush() -> None:
    times = surge(10_000, 60.0, seeded(1), begin=30.0)
    assert len(times) == 10_000
    assert times == sorted(times)
    assert 30.0 <= times[0] < times[-1] < 90.0
    assert in_each([at - 30.0 for at in times], 6.0, 10) == pytest.approx([1000] * 10, abs=130)


@given(
    st.floats(0.1, 50),
    st.floats(0.2, 5),
    st.floats(0, 100),
    st.integers(0, 2**32),
)
def test_times_are_in_order_within_bounds_and_the_same_for_the_same_seed(
    per_s: float, variation: float, begin: float, seed: int
) -> None:
    until = begin + 20.0
    times = list(gamma(per_s, variation, until, seeded(seed), begin))
    assert times == sorted(times)
    assert all(begin <= at < until for at in times)
    assert times == list(gamma(per_s, variation, until, seeded(seed), begin))


traces = st.lists(st.floats(0, 1e4), min_size=1, max_size=30).map(
    lambda times: [Call(at, name) for name, at in enumerate(sorted(times))]
)


@given(traces, st.floats(0.05, 8), st.floats(0.1, 10), st.integers(0, 2**32))
def test_a_scaled_trace_keeps_its_order_and_makes_up_no_call(trace: list[Call], times: float, speed: float, seed: int) -> None:
    played = list(replay(trace, seeded(seed), times=times, speed=speed))
    assert [at for at, _ in played] == sorted(at for at, _ in played)
    assert [call.name for _, call in played] == sorted(call.name for _, call in played)
    counts = [sum(call is one for _, call in played) for one in trace]
    assert all(math.floor(times) <= count <= math.ceil(times) for count in counts)
    assert all(call.at / speed <= at <= trace[-1].at / speed for at, call in played)


@given(traces)
def test_a_trace_that_is_not_scaled_comes_as_it_was(trace: list[Call]) -> None:
    assert list(replay(trace, seeded(1))) == [(call.at, call) for call in trace]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_trace_scaled_by_a_part_keeps_that_part(seed: int) -> None:
    trace = [Call(float(at)) for at in range(20_000)]
    assert len(list(replay(trace, seeded(seed), times=0.3))) == pytest.approx(6000, abs=260)
    assert len(list(replay(trace, seeded(seed), times=2.5))) == pytest.approx(50_000, abs=290)


@pytest.mark.parametrize(("times", "speed"), [(0.0, 1.0), (1.0, 0.0), (-2.0, 1.0), (math.nan, 1.0), (1.0, math.inf)])
def test_a_trace_cannot_be_scaled_to_nothing(times: float, speed: float) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        list(replay([Call(0.0)], seeded(1), times=times, speed=speed))
