"""Who says how many replicas a model should have: daemun's own policy, or anything else in its place. Pure.

An autoscaler is made for one model and one run, so it may remember. It is told what the gateway tells, and nothing else: `Signal`
has what `GET /internal/demand` has, as our policy reads it, and the plain counts that other policies go by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from serving.autoscaling.demand import Demand
from serving.autoscaling.policy import Bounds, Capacity, State, desired_replicas


@dataclass(frozen=True, slots=True)
class Signal:
    """Of one model, now. waiting, running: calls, of all tiers. places: calls at once on all ready replicas."""

    demand: Demand
    waiting: int
    running: int
    ready: int
    starting: int
    places: int
    arrivals_per_s: float
    rejections_per_s: float
    expected_wait_s: float


@dataclass(frozen=True, slots=True)
class Subject:
    """What an autoscaler is told of its model before it begins. `places`: calls at once on one replica."""

    model: str
    least: int
    most: int
    start: int
    places: int
    tokens_per_s: float
    cold_start_s: float
    target_first_token_s: float


class Autoscaler(Protocol):
    def decide(self, signal: Signal, current: int, now: float) -> int:
        """How many replicas there should be. `current`: those there or on their way. Asked every few seconds of virtual time."""
        ...


MakeAutoscaler = Callable[[Subject], Autoscaler]


class Steady:
    """As many as at the start, always."""

    def __init__(self, subject: Subject) -> None:
        self._replicas = subject.start

    def decide(self, signal: Signal, current: int, now: float) -> int:
        return self._replicas


class OwnPolicy:
    """`serving.autoscaling.policy`, as Ray Serve runs it. `bounds` but for least and most, which are the model's."""

    def __init__(self, subject: Subject, bounds: dict[str, float]) -> None:
        self._capacity = Capacity(subject.tokens_per_s, subject.cold_start_s)
        self._bounds = Bounds(least=subject.least, most=subject.most, **bounds)
        self._state = State()
        self.reason = ""

    def decide(self, signal: Signal, current: int, now: float) -> int:
        decision = desired_replicas(signal.demand, self._capacity, self._bounds, self._state, current=current, now=now)
        self._state, self.reason = decision.state, decision.reason
        return decision.replicas
