"""On which kind of GPU would a model rather run? On the one where it is better than others are, not on the one where it is
fastest.

By comparative advantage: a model's speed for each hundredth of a GPU, against its own best, against what the kind is worth to
all models. So a small model that is nearly as fast on a small card leaves the big card to the model that runs nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import fsum

from serving.allocation.claim import Model
from serving.allocation.fleet import Node
from serving.allocation.shape import Shape


@dataclass(frozen=True, slots=True)
class Preference:
    """`shapes`: those of each model that some node is large enough for, the best first. `worth`: of each kind, to all models."""

    shapes: Mapping[str, tuple[Shape, ...]]
    worth: Mapping[str, float]


def preference(models: Iterable[Model], nodes: Iterable[Node]) -> Preference:
    """`models` in the order of their ids, so that sums come out the same."""
    largest: dict[str, int] = {}
    for node in nodes:
        largest[node.kind] = max(largest.get(node.kind, 0), node.gpus)
    able = {model.id: [shape for shape in model.shapes if shape.gpus <= largest.get(shape.kind, 0)] for model in models}
    relative = {id_: _relative(shapes) for id_, shapes in able.items()}
    worth = {kind: fsum(speeds.get(kind, 0.0) for speeds in relative.values()) for kind in largest}
    best = {id_: max(map(_rate, shapes), default=1.0) for id_, shapes in able.items()}

    def advantage(id_: str, shape: Shape) -> float:
        return _rate(shape) / best[id_] / worth[shape.kind]

    def order(id_: str) -> tuple[Shape, ...]:
        # Rounded, so that what differs by an error of reckoning alone counts as equal.
        return tuple(sorted(able[id_], key=lambda shape: (-round(advantage(id_, shape), 9), shape.size, shape)))

    return Preference({id_: order(id_) for id_ in able}, worth)


def _rate(shape: Shape) -> float:
    return shape.tokens_per_s / shape.size


def _relative(shapes: Iterable[Shape]) -> dict[str, float]:
    """By kind: the best of the model's shapes there, 1 where it is best of all."""
    rates: dict[str, float] = {}
    for shape in shapes:
        rates[shape.kind] = max(rates.get(shape.kind, 0.0), _rate(shape))
    best = max(rates.values(), default=1.0)
    return {kind: rate / best for kind, rate in rates.items()}
