"""Who wants what: models with their bounds, teams with their weights, what each team asks for, and what it has reserved."""

from __future__ import annotations

from dataclasses import dataclass

from serving.allocation.fleet import Kind, Node
from serving.allocation.shape import Shape

HOUSE = ""  # who keeps the replicas of a floor that no team asks for


@dataclass(frozen=True, slots=True)
class Model:
    """At least `floor` replicas, at most `ceiling`, of all teams together; each in one of the `shapes`."""

    id: str
    shapes: tuple[Shape, ...]
    floor: int = 0
    ceiling: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Team:
    """A team of weight 2 gets twice the share of one of weight 1 where both want more than there is."""

    id: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Claim:
    """So many replicas of the model the team wants now: the autoscaler's word."""

    team: str
    model: str
    wanted: int


@dataclass(frozen=True, slots=True)
class Reservation:
    """`gpus` GPUs, of a kind or of any, are the team's from `start` to before `end` (seconds, of the clock that `now` is of)."""

    id: str
    team: str
    kind: str | None
    gpus: int
    start: float
    end: float

    def runs(self, now: float) -> bool:
        return self.start <= now < self.end


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a plan is made of, besides what runs and what time it is. The order within each tuple does not matter.

    Whoever must leave a GPU has `drain_s` for the calls that it still answers.
    """

    kinds: tuple[Kind, ...]
    nodes: tuple[Node, ...]
    models: tuple[Model, ...]
    teams: tuple[Team, ...] = ()
    claims: tuple[Claim, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    drain_s: float = 60.0
