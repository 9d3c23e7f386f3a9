"""Who is entitled to how much of what floors and reservations leave: dominant resource fairness, weighted.

Source: Ghodsi et al., "Dominant Resource Fairness: Fair Allocation of Multiple Resource Types", NSDI 2011. The resources are
the fleet's memory and its speed; a team's dominant share is the larger of its parts of the two, divided by its weight. The team
whose share is lowest gets the next replica, until nothing fits (progressive filling): max-min fair. Only counted here, nothing
is placed; the same facts give the same counts, wherever replicas happen to be.

Rejected: each kind of GPU as a resource of its own. Kinds stand in for each other, so a team that makes do with all of a few
small cards would count as having everything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heapreplace
from math import fsum

from serving.allocation.replica import Grade
from serving.allocation.shape import Shape

Right = tuple[str, str, str, Grade]  # team, model, kind of GPU, SHARE or BORROWED


@dataclass(frozen=True, slots=True)
class Supply:
    """Hundredths by kind: what may be given out now, and how much of it nobody has reserved. What one hundredth has, by kind:
    memory in MiB, and what its speed is worth.
    """

    all: Mapping[str, int]
    unreserved: Mapping[str, int]
    memory: Mapping[str, float]
    speed: Mapping[str, float]

    def amounts(self, hundredths: Mapping[str, int]) -> tuple[float, float]:
        """Memory and speed of so much of each kind."""
        kinds = sorted(hundredths)
        return fsum([hundredths[kind] * self.memory[kind] for kind in kinds]), fsum(
            [hundredths[kind] * self.speed[kind] for kind in kinds]
        )


@dataclass(slots=True)
class Shares:
    """What came out: replicas by right, those for which nothing is left, and each team's share at the end."""

    rights: dict[Right, int] = field(default_factory=dict)
    without: dict[tuple[str, str], int] = field(default_factory=dict)
    share: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Ask:
    model: str
    wanted: int


class _Filling:
    """What is left while it is given out, a replica at a time."""

    def __init__(self, supply: Supply, ceilings: Mapping[str, int], shapes: Mapping[str, Sequence[Shape]]) -> None:
        self._supply, self._shapes = supply, shapes
        self._left, self._more = dict(supply.all), dict(ceilings)
        self._all, self._unreserved = supply.amounts(supply.all), supply.amounts(supply.unreserved)
        self._used: dict[str, tuple[float, float]] = {}  # memory and speed by team
        self.shares = Shares()

    def next(self, team: str, turn: deque[_Ask]) -> tuple[_Ask, Shape] | None:
        """The team's next replica; its models take turns. Those for which nothing is left are out."""
        while turn:
            ask = turn[0]
            if self._more[ask.model] > 0:
                for shape in self._shapes[ask.model]:
                    if self._left[shape.kind] >= shape.size:
                        return ask, shape
            turn.popleft()
            self.shares.without[team, ask.model] = ask.wanted
        return None

    def give(self, team: str, ask: _Ask, shape: Shape, fair: float) -> float:
        """Returns the team's dominant share, not yet weighted. What it had below its `fair` part of the unreserved is a SHARE."""
        kind, size = shape.kind, shape.size
        memory, speed = self._used.get(team, (0.0, 0.0))
        is_share = memory < fair * self._unreserved[0] and speed < fair * self._unreserved[1]
        self._left[kind] -= size
        self._more[ask.model] -= 1
        ask.wanted -= 1
        right = (team, ask.model, kind, Grade.SHARE if is_share else Grade.BORROWED)
        self.shares.rights[right] = self.shares.rights.get(right, 0) + 1
        memory, speed = self._used[team] = memory + size * self._supply.memory[kind], speed + size * self._supply.speed[kind]
        return max(memory / self._all[0], speed / self._all[1])


def fill(
    supply: Supply,
    weights: Mapping[str, float],
    wants: Mapping[tuple[str, str], int],
    ceilings: Mapping[str, int],
    shapes: Mapping[str, Sequence[Shape]],
) -> Shares:
    """`wants` by team and model; `ceilings` are how many more each model may have; `shapes` in the order of preference."""
    turns: dict[str, deque[_Ask]] = {}
    for (team, model), wanted in sorted(wants.items()):
        if wanted > 0:
            turns.setdefault(team, deque()).append(_Ask(model, wanted))
    filling, all_weight = _Filling(supply, ceilings, shapes), fsum(weights.values())
    heap = [(0.0, team) for team in sorted(turns)]
    while heap:
        share, team = heap[0]
        found = filling.next(team, turns[team])
        if found is None:
            heappop(heap)
            filling.shares.share[team] = share
            continue
        part = filling.give(team, *found, weights[team] / all_weight) / weights[team]
        if found[0].wanted:
            turns[team].rotate(-1)
        else:
            turns[team].popleft()
        heapreplace(heap, (part, team))
    return filling.shares
