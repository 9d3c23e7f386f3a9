"""How many replicas each model should have, for whoever else scales them: the policy's number without Ray. Pure.

There is no advice where the signal is missing or old: an autoscaler that finds no figure leaves the fleet as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.autoscaling.demand import Demand
from serving.autoscaling.policy import Bounds, Capacity, State, desired_replicas

_FIGURES = (
    ("daemun_desired_replicas", "Replicas that the model should have. Absent while nobody knows what is asked of it."),
    ("daemun_current_replicas", "Replicas of the model that are ready or starting."),
    ("daemun_wanted_replicas", "The work for the model in replicas and parts of them, before bounds and hold."),
)


@dataclass(frozen=True, slots=True)
class Advice:
    """`wanted`: in replicas and parts of them, before bounds and hold; `reason`: a sentence for operators."""

    model: str
    desired: int
    current: int
    wanted: float
    reason: str


class Adviser:
    """Of one model. `hear` at even times, about once a second: the forecast lives on it."""

    def __init__(self, model: str, capacity: Capacity, bounds: Bounds) -> None:
        self.model = model
        self.advice: Advice | None = None
        self._capacity = capacity
        self._bounds = bounds
        self._state = State()

    def hear(self, demand: Demand | None, now: float) -> None:
        """What the gateway said last of this model, which may be nothing."""
        if demand is None or now - demand.at > self._bounds.stale_s:
            self.advice = None
            return
        current = demand.ready + demand.starting
        decision = desired_replicas(demand, self._capacity, self._bounds, self._state, current=current, now=now)
        self._state = decision.state
        self.advice = Advice(self.model, decision.replicas, current, decision.wanted, decision.reason)


def prometheus_text(advice: Sequence[Advice]) -> str:
    """In Prometheus' text format 0.0.4, for HPA by its adapter and for KEDA's `prometheus` trigger."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(advice))
    return generate_latest(registry).decode()


class _Figures(Collector):
    def __init__(self, advice: Sequence[Advice]) -> None:
        self._advice = advice

    def collect(self) -> Iterator[Metric]:
        for (name, meaning), figure in zip(_FIGURES, ("desired", "current", "wanted"), strict=True):
            family = GaugeMetricFamily(name, meaning, labels=["model"])
            for one in self._advice:
                family.add_metric([one.model], getattr(one, figure))
            yield family


def as_json(advice: Advice) -> str:
    """For KEDA's `metrics-api` trigger (`valueLocation: desired_replicas`) and for people."""
    figures = {
        "model": advice.model,
        "desired_replicas": advice.desired,
        "current_replicas": advice.current,
        "wanted_replicas": round(advice.wanted, 3),
        "reason": advice.reason,
    }
    return json.dumps(figures, ensure_ascii=False)
