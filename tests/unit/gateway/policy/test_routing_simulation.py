"""What the router is worth on a simulated fleet. docs/routing.md has the figures; the margins here are half of them or less."""

from __future__ import annotations

from functools import cache

import pytest

from tests.routing_simulation import (
    CHAT,
    ONE_PROMPT,
    ONE_TENANT,
    SLOW,
    THREE_SPEEDS,
    TWO_SPEEDS,
    AtRandom,
    LeastCalls,
    Outcome,
    Policy,
    Routed,
    Scenario,
    Simulation,
)

SEEDS = [0, 1]
OTHERS: list[type[Policy]] = [AtRandom, LeastCalls]


@cache
def run(scenario: Scenario, seed: int, policy: type[Policy] = Routed) -> Outcome:
    return Simulation(scenario, seed, policy()).run()


@pytest.mark.parametrize("seed", [*SEEDS, 2])
@pytest.mark.parametrize("scenario", [CHAT, ONE_TENANT], ids=lambda scenario: scenario.name)
def test_chat_finds_its_cache_and_starts_sooner(scenario: Scenario, seed: int) -> None:
    ours = run(scenario, seed)
    assert ours.hit_share > 0.88
    for other in OTHERS:
        theirs = run(scenario, seed, other)
        assert ours.hit_share > theirs.hit_share + 0.1
        assert ours.ttft_s(0.5) < 0.7 * theirs.ttft_s(0.5)
        assert ours.ttft_s(0.99) < 0.75 * theirs.ttft_s(0.99)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scenario", [CHAT, ONE_PROMPT, ONE_TENANT], ids=lambda scenario: scenario.name)
def test_nobody_has_much_more_than_a_fair_share_under_skew(scenario: Scenario, seed: int) -> None:
    assert run(scenario, seed).most_of_fair <= 1.3


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scenario", [TWO_SPEEDS, THREE_SPEEDS], ids=lambda scenario: scenario.name)
def test_unequal_replicas_get_work_in_proportion_to_speeds_that_nobody_told(scenario: Scenario, seed: int) -> None:
    ours, theirs = (run(scenario, seed, policy) for policy in (Routed, LeastCalls))
    assert all(0.75 < load < 1.3 for load in ours.load.values())
    assert ours.ttft_s(0.99) < 0.75 * theirs.ttft_s(0.99)


@pytest.mark.parametrize("seed", SEEDS)
def test_replica_that_becomes_slow_holds_up_fewer_calls(seed: int) -> None:
    ours = run(SLOW, seed)
    for other in OTHERS:
        assert ours.ttft_s(0.99) < 0.75 * run(SLOW, seed, other).ttft_s(0.99)
