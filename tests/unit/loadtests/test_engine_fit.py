"""From times to figures: known ones are found again, and the model's own times are what is compared."""

from __future__ import annotations

import pytest

from engines.model import EngineFigures
from loadtests.engine_fit import DecodeStep, Size, decode_times, least_squares, predicted, prefill_times


def test_figures_are_found_again_from_the_times_that_they_make() -> None:
    shapes = ((1, 100.0), (8, 900.0), (32, 2_000.0), (64, 9_000.0))
    steps = [DecodeStep(0.005 + 0.0002 * calls + 1e-6 * context, calls, context) for calls, context in shapes]
    assert decode_times(steps) == pytest.approx((0.005, 0.0002, 1e-6))
    assert prefill_times([(tokens, 0.01 + 4e-5 * tokens) for tokens in (32, 500, 1800)]) == pytest.approx((0.01, 4e-5))


def test_no_factor_is_below_nothing() -> None:
    assert least_squares([(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)], [3.0, 2.0, 1.5])[1] == 0.0


def test_short_times_count_as_much_as_long_ones() -> None:
    """Relative errors: a straight line through 1 and 100 that has to miss one of three misses none of them by much."""
    alone, slope = least_squares([(1.0, 0.0), (1.0, 50.0), (1.0, 100.0)], [1.0, 55.0, 100.0])
    assert alone == pytest.approx(1.0, rel=0.1)
    assert slope == pytest.approx(1.0, rel=0.1)


def test_clients_ask_one_call_after_the_other() -> None:
    figures = EngineFigures(1.0, 0.01, 0.0, front_s=0.5)
    timed = predicted(figures, [Size(100, 2), Size(100, 1), Size(50, 3)], clients=1)
    assert [round(one.first_s, 6) for one in timed] == [2.5, 2.5, 2.0]
    assert [one.between_s for one in timed] == [1.0, 0.0, 1.0]
    assert [round(one.ended_at, 6) for one in timed] == [3.5, 6.0, 10.0]


def test_more_clients_share_the_steps() -> None:
    figures = EngineFigures(1.0, 0.0, 0.1)
    alone, together = (predicted(figures, [Size(10, 11)] * 8, clients=clients) for clients in (1, 8))
    assert together[-1].ended_at < alone[-1].ended_at / 4
    assert together[0].between_s > alone[0].between_s
