"""What comes out of an allocation: where each replica is, and one sentence of why, for it and for each that has no place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from serving.allocation.reason import Reason
from serving.allocation.replica import Hold, Phase, Replica, State


@dataclass(frozen=True, slots=True)
class Refusal:
    """So many replicas have no place: of a team's claim, or of a floor if the team is the house."""

    team: str
    model: str
    count: int
    why: Reason


@dataclass(frozen=True, slots=True)
class Shortfall:
    """So many of the GPUs that the reservation promises are not there."""

    reservation: str
    gpus: int
    why: Reason


@dataclass(frozen=True, slots=True)
class Plan:
    """`replicas` is all there will be, those that drain and those that wait for them included; `gone` what had been and is not.

    `why` has a reason for each of both, by id.
    """

    replicas: tuple[Replica, ...]
    holds: tuple[Hold, ...]
    gone: tuple[Replica, ...]
    refusals: tuple[Refusal, ...]
    shortfalls: tuple[Shortfall, ...]
    why: Mapping[str, Reason]

    @property
    def state(self) -> State:
        """What the next plan starts from, if all goes as planned."""
        return State(self.replicas, self.holds)

    def tokens_per_s(self, model: str) -> float:
        """What the model's replicas are measured to do, those included that start or wait for their place."""
        return sum(
            [each.shape.tokens_per_s for each in self.replicas if each.model == model and each.phase is not Phase.DRAINING]
        )
