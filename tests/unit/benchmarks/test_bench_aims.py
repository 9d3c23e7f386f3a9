"""Ratios are taken round by round, verdicts from their medians, and what was not measured is not judged."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gateway import figures as names
from benchmarks.gateway.aims import verdicts
from benchmarks.gateway.figures import Figures, shown
from benchmarks.gateway.load.rate import percentile
from benchmarks.gateway.peers import DAEMUN, VLLM_ROUTER


def figures(**values: list[float]) -> Figures:
    """Of daemun."""
    measured = Figures()
    for figure, rounds in values.items():
        for value in rounds:
            measured.add(figure, DAEMUN, value)
    return measured


def lines(measured: Figures) -> list[str]:
    return [verdict.line() for verdict in verdicts(measured)]


def compared(figure: str, ours: list[float], theirs: list[float]) -> Figures:
    measured = figures(**{figure: ours})
    for value in theirs:
        measured.add(figure, VLLM_ROUTER, value)
    return measured


def test_nothing_measured_is_nothing_judged() -> None:
    assert verdicts(Figures()) == []


def test_ratio_is_of_values_of_the_same_round() -> None:
    # The machine was twice as slow in the second round, for both.
    measured = compared(names.CALLS_PER_S, [9000, 4500, 9100], [9000, 4500, 9000])
    assert lines(measured) == ["HOLDS calls_per_s_vs_vllm_router 1 >=1"]


def test_median_decides() -> None:
    measured = compared(names.STREAMS_PER_S, [500, 900, 500], [800, 800, 800])
    assert lines(measured) == ["SHORT streams_per_s_vs_vllm_router 0.625 >=1"]


@pytest.mark.parametrize("figure", [names.ADDED_P50_MS, names.CALLS_PER_S, names.STREAMS_PER_S])
def test_peer_that_did_nothing_in_a_round_makes_the_run_fall_short(figure: str) -> None:
    [verdict] = verdicts(compared(figure, [1.0, 1.0, 1.0], [1.0, 0.0, 1.0]))
    assert (verdict.holds, verdict.value) == (False, "nan")


@pytest.mark.parametrize(
    ("figure", "value", "line"),
    [
        (names.US_PER_CHUNK, 20.0, "HOLDS us_per_chunk 20 <=20"),
        (names.US_PER_CHUNK, 20.01, "SHORT us_per_chunk 20.01 <=20"),
        (names.OPEN_STREAMS, 9900, "SHORT open_streams 9900 >=10000"),
        (names.OPEN_STREAMS, 10_000, "HOLDS open_streams 10000 >=10000"),
        (names.OPEN_FAILED, 1, "SHORT open_streams_failed 1 <=0"),
        (names.KB_PER_STREAM, 29.1, "HOLDS kb_per_open_stream 29.1 <=30"),
        (names.SHORT_P99_MS, math.inf, "SHORT short_call_p99_ms_under_open_streams inf <=50"),
    ],
)
def test_line(figure: str, value: float, line: str) -> None:
    assert lines(figures(**{figure: [value]})) == [line]


@pytest.mark.parametrize(
    ("memory", "line"),
    [
        ([60.0, 90.0, 63.9], "HOLDS memory_growth_mb 3.9 <=4.0"),
        ([60.0, 64.1], "SHORT memory_growth_mb 4.1 <=4.0"),
        ([200.0, 209.0], "HOLDS memory_growth_mb 9.0 <=10.0"),
    ],
)
def test_memory_may_grow_by_a_twentieth_or_by_four_megabytes(memory: list[float], line: str) -> None:
    assert lines(figures(memory_mb=memory)) == [line]


def test_shown() -> None:
    assert shown([]) == "–"
    assert shown([8123.4]) == "8,123"
    assert shown([0.3, 0.1, 0.2], 2) == "0.20 (0.10 to 0.30)"


@given(st.lists(st.floats(0, 1000), min_size=1), st.floats(1, 100))
def test_percentile_is_the_smallest_value_that_so_many_do_not_exceed(values: list[float], percent: float) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= len(values) * percent / 100 - 1e-9
    assert sum(value < found for value in values) < len(values) * percent / 100 + 1e-9


def test_percentile_of_nothing_is_infinite() -> None:
    assert percentile([], 99) == math.inf
