"""How many replicas each model should have, for whoever else scales them: the policy's number without Ray. Pure.

There is no advice where the signal is missing or old: an autoscaler that finds no figure leaves the fleet as it is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

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
    lines: list[str] = []
    for (name, meaning), figure in zip(_FIGURES, ("desired", "current", "wanted"), strict=True):
        lines += [f"# HELP {name} {meaning}", f"# TYPE {name} gauge"]
        lines += [f'{name}{{model="{_escaped(one.model)}"}} {getattr(one, figure):g}' for one in advice]
    return "\n".join([*lines, ""])


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


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
