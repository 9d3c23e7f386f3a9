"""Where each replica is: the state that a plan starts from and the one that it ends with are of the same kind."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from serving.allocation.shape import Shape


class Grade(IntEnum):
    """By what right a replica has its place. Of two that want the same GPU the one of the lower number gets it."""

    FLOOR = 0  # the model's floor
    RESERVED = 1  # on GPUs that its team has reserved
    SHARE = 2  # within its team's fair share of what nobody has reserved
    BORROWED = 3  # beyond it, of what others leave idle
    SPARE = 4  # nobody who is entitled to the place can use it, or the replica is entitled to another kind of GPU


class Phase(Enum):
    RUNNING = "running"  # or being started
    PROMISED = "promised"  # the place is its own, but others drain there until `until` at the latest
    DRAINING = "draining"  # takes no new calls, and is gone at `until` or before


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica on these GPUs of this node. `until` is None while it runs."""

    id: str
    model: str
    team: str
    node: str
    gpus: tuple[int, ...]
    shape: Shape
    grade: Grade
    phase: Phase = Phase.RUNNING
    until: float | None = None


@dataclass(frozen=True, slots=True, order=True)
class Hold:
    """These GPUs are what the reservation has got. While it does not use them they are lent."""

    reservation: str
    node: str
    gpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class State:
    """What there is at a moment. A replica that has ended, or whose node has left, may be left out or not."""

    replicas: tuple[Replica, ...] = ()
    holds: tuple[Hold, ...] = ()
