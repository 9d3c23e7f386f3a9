"""The simulator's benchmark: what it simulates, and how it judges."""

from __future__ import annotations

import pytest

from benchmarks.simulator.__main__ import Timed, verdicts
from benchmarks.simulator.fleet import MODELS, REPLICAS_EACH, fleet
from serving.simulator.crowd import visits


def test_it_is_two_thousand_replicas_and_the_calls_that_were_said() -> None:
    told = fleet(40.0, 60.0, 1)
    assert sum(model.replicas.first for model in told.models) == MODELS * REPLICAS_EACH == 2000
    came = list(visits(told))
    assert len(came) == pytest.approx(40 * 60, rel=0.1)
    assert sum(visit.output_tokens for visit in came) / len(came) == pytest.approx(8300, rel=0.1)  # the longest are cut off
    assert {visit.model for visit in came} == {model.name for model in told.models}


def test_each_load_is_judged_and_so_is_whether_runs_are_alike() -> None:
    runs = {20.0: [Timed(150.0, 10, 1.0, 5, "a")] * 2, 40.0: [Timed(80.0, 10, 1.0, 5, "b"), Timed(90.0, 10, 1.0, 5, "c")]}
    lines = [verdict.line() for verdict in verdicts({20.0: 150.0, 40.0: 85.0}, runs)]
    assert lines == [
        "HOLDS times_real_time_at_20_calls_a_second 150 >=100",
        "SHORT times_real_time_at_40_calls_a_second 85 >=100",
        "SHORT runs_of_one_seed_alike 0.5 >=1",
    ]
