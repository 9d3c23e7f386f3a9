"""The forecast: no worse than the naive one on noise, better on trends and on days that are alike."""

import math
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.autoscaling.forecast import EXPERTS, Forecast

HOUR, DAY = 3600.0, 86_400.0


def errors(rate: Callable[[float], float], until: float, *, horizon_s: float, every_s: float, judged_from: float = 0.0) -> float:
    """The forecast's squared error, of the naive one's."""
    forecast, own, his = Forecast(horizon_s), 0.0, 0.0
    said: list[float] = []
    naive: list[float] = []
    steps, ahead = int(until / every_s), int(horizon_s / every_s)
    for step in range(steps):
        now = step * every_s
        value = rate(now)
        forecast = forecast.observe(value, now)
        if step >= ahead and now >= judged_from:
            own += (said[step - ahead] - value) ** 2
            his += (naive[step - ahead] - value) ** 2
        said.append(forecast.ahead(now))
        naive.append(value)
    return own / his


def noisy(rate: Callable[[float], float], seed: int, calls_s: float = 10.0) -> Callable[[float], float]:
    """Calls of 100 tokens that come by chance, as a mean over some seconds."""
    random = Random(seed)  # noqa: S311 - a simulation
    return lambda now: max(0.0, random.gauss(rate(now), math.sqrt(rate(now) * 100.0 / calls_s)))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_steady_demand_is_forecast_better_than_by_its_last_figure(seed: int) -> None:
    assert errors(noisy(lambda _: 1000.0, seed), HOUR, horizon_s=60, every_s=2) < 0.65


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rising_demand_is_forecast_better_than_by_its_last_figure(seed: int) -> None:
    rate = noisy(lambda now: 1000.0 + 2.0 * now, seed)
    assert errors(rate, HOUR, horizon_s=120, every_s=2, judged_from=600) < 0.5


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_third_day_is_forecast_by_the_two_before(seed: int) -> None:
    def office(now: float) -> float:
        return 200.0 + 4000.0 / (1.0 + math.exp(-((now % DAY) - 9 * HOUR) / 300.0)) * ((now % DAY) < 18 * HOUR)

    rate = noisy(office, seed)
    assert errors(rate, 3 * DAY, horizon_s=300, every_s=30, judged_from=2 * DAY) < 0.7


def test_an_expert_that_is_right_counts_most() -> None:
    forecast = Forecast(60.0)
    for step in range(400):
        forecast = forecast.observe(100.0 + step * 5.0, step * 2.0)
    assert max(zip(forecast.weights(), EXPERTS, strict=True))[1].endswith("trend")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_waves_and_jumps_are_forecast_no_worse_than_by_the_last_figure(seed: int) -> None:
    wave = noisy(lambda now: 3000.0 + 2000.0 * math.sin(now / 600 * math.tau), seed)
    jump = noisy(lambda now: 1000.0 if now < HOUR / 2 else 4000.0, seed)
    assert errors(wave, 2 * HOUR, horizon_s=60, every_s=2) < 0.7
    assert errors(jump, HOUR, horizon_s=60, every_s=2) < 1.0


def test_headroom_is_what_was_lacking_lately() -> None:
    steady, jumping = Forecast(30.0), Forecast(30.0)
    for step in range(400):
        steady = steady.observe(1000.0, step * 2.0)
        jumping = jumping.observe(3000.0 if step % 50 > 40 else 500.0, step * 2.0)
    at = 800.0
    assert steady.at_most(at, 2.0) - steady.ahead(at) < 1.0
    assert jumping.at_most(at, 1.0) - jumping.ahead(at) > 300.0


def test_same_time_again_and_time_before_change_nothing() -> None:
    forecast = Forecast(30.0).observe(5.0, 10.0)
    assert forecast.observe(9.0, 10.0) == forecast == forecast.observe(9.0, 3.0)


@given(st.lists(st.tuples(st.floats(0, 1e7), st.floats(0.01, 20_000)), max_size=40), st.floats(1, 900))
def test_no_forecast_is_negative_or_endless(figures: list[tuple[float, float]], horizon_s: float) -> None:
    forecast, now, most = Forecast(horizon_s), 0.0, 0.0
    for value, passed in figures:
        now += passed
        most = max(most, value)
        forecast = forecast.observe(value, now)
        assert 0.0 <= forecast.ahead(now) < math.inf
        assert forecast.at_most(now, 1.0) >= forecast.ahead(now)
        assert math.fsum(forecast.weights()) == pytest.approx(1.0)
