"""The worst fleet decides, and what was not measured is not judged."""

from __future__ import annotations

from benchmarks.allocation.aims import Round, verdicts
from benchmarks.allocation.national import national


def lines(*rounds: dict[str, float]) -> list[str]:
    return [verdict.line() for verdict in verdicts([Round(seed, figures) for seed, figures in enumerate(rounds)])]


def test_nothing_measured_is_nothing_judged() -> None:
    assert lines({}) == []


def test_worst_fleet_decides() -> None:
    assert lines({"seconds_from_nothing": 0.4}, {"seconds_from_nothing": 1.2}) == ["SHORT seconds_from_nothing 1.2 <=1"]
    assert lines({"gpus_over_committed": 0.0}, {"gpus_over_committed": 0.0}) == ["HOLDS gpus_over_committed 0 <=0"]


def test_fleet_is_as_large_as_it_says() -> None:
    facts = national(1)
    assert sum(node.gpus for node in facts.nodes) == 10_000
    assert (len(facts.models), len(facts.teams), len(facts.reservations)) == (200, 500, 5)
    assert national(1) == facts
