"""A fleet that neither grows nor fails is what `loadtests.overload_sim` simulates, whose figures docs/overload.md has."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import pytest

from engines.figures import load
from gateway.policy.admission import Rules, WaitingRoom
from gateway.policy.routing import Router, Work
from loadtests import overload_sim
from serving.simulator import service
from serving.simulator.crowd import visits
from serving.simulator.replica import Replica
from serving.simulator.run import Run
from serving.simulator.visit import Visit
from tests.unit.serving.simulator.fleets import scenario

END_S = 40.0


class PlainRouter:
    """The gateway's but for its choice, which is `overload_sim`'s: a seat, and the fewest prompt tokens without a first token."""

    first: Sequence[float] = ()  # of the run's calls, by row

    def __init__(self) -> None:
        self._router: Router[Replica] = Router()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._router, name)

    def pick(self, work: Work, replicas: Sequence[Replica], now: float, tried: Collection[str] = ()) -> Replica | None:
        return min(replicas, key=lambda one: (len(one.calls) >= one.places, self._unread(one), len(one.calls)))

    def _unread(self, replica: Replica) -> int:
        return sum(call.visit.prompt_tokens for call in replica.calls.values() if math.isnan(self.first[call.row]))


@pytest.mark.parametrize("times", [0.7, 2.0])
def test_same_visits_routed_alike_come_to_the_same(times: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last call and its times: of all that a call meets but the router, the two know of each other nothing."""
    per_s = 2 * load("h100-8b").calls_per_s(600, 250) * times
    told = scenario(
        duration_s=END_S,
        tenants=[{"name": "paid", "tier": "paid", "count": 3, "share": 0.4}, {"name": "free", "count": 5, "share": 0.6}],
        traffic=[
            {"kind": "poisson", "per_s": per_s, "prompt_tokens": {"mean": 600}, "output_tokens": {"mean": 250, "most": 2000}}
        ],
        autoscaling={"policy": "none"},
    )
    monkeypatch.setattr(service, "Router", PlainRouter)
    coming = list(visits(told))
    run = Run(told, coming=coming)
    monkeypatch.setattr(PlainRouter, "first", run.result.calls.first)
    calls = run.run().calls
    other = overload_sim.Simulation(load("h100-8b"), 2, WaitingRoom(Rules()), seed=1)
    outcomes = other.run([_elsewhere(visit, str(row)) for row, visit in enumerate(coming)], END_S)
    assert list(calls.started) == pytest.approx([outcome.started for outcome in outcomes], nan_ok=True)
    assert list(calls.first) == pytest.approx([outcome.first for outcome in outcomes], nan_ok=True)
    assert [bool(turned) for turned in calls.turned] == [bool(outcome.told) for outcome in outcomes]
    served = [row for row in range(len(calls)) if calls.output_tokens[row]]
    assert [calls.output_tokens[row] for row in served] == [outcomes[row].output_tokens for row in served]
    assert len(served) > 1000


def _elsewhere(visit: Visit, caller: str) -> overload_sim.Visit:
    return overload_sim.Visit(
        visit.at,
        visit.tenant,
        visit.tier,
        visit.prompt_tokens,
        visit.output_tokens,
        visit.expected_tokens,
        visit.target_s,
        caller=caller,
    )
