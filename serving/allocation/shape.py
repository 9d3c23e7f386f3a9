"""The forms that a replica may take on each kind of GPU: a part of one, one, or several in one node.

A part is one number, in hundredths: the larger of the compute that the replica shall have and the memory that it needs. So
neither is ever over-committed, and Ray, which knows one number a GPU (`num_gpus`), can carry it out. Rejected: compute and
memory apart. It would pack a little closer, but Ray counts further resources a node, not a GPU, and could not keep to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil

from serving.allocation.fleet import WHOLE, Kind


@dataclass(frozen=True, slots=True, order=True)
class Shape:
    """`gpus` GPUs in one node, `hundredths` and `memory_mib` of each; less than a whole GPU only where it is one."""

    kind: str
    gpus: int
    hundredths: int
    memory_mib: int
    tokens_per_s: float

    @property
    def size(self) -> int:
        """Hundredths of a GPU in all."""
        return self.gpus * self.hundredths


@dataclass(frozen=True, slots=True)
class Need:
    """What a replica needs. Weights and cache are divided among its GPUs, `fixed_mib` (context, activations) is needed on each.

    `cache_mib` is the least KV cache worth having; a whole GPU gives all that is left. `compute` is the least part of a GPU's
    compute, in hundredths. `splits` are the numbers of GPUs that the model can be divided among: those that divide its
    attention heads.
    """

    weights_mib: int
    cache_mib: int
    fixed_mib: int = 0
    compute: int = 1
    splits: tuple[int, ...] = (1, 2, 4, 8)


def legal_shapes(need: Need, kinds: Iterable[Kind], tokens_per_s: Mapping[str, float]) -> tuple[Shape, ...]:
    """The smallest form on each kind for which there is a measured speed and on which the model fits at all."""
    found = (_smallest(need, kind, tokens_per_s[kind.name]) for kind in kinds if kind.name in tokens_per_s)
    return tuple(sorted(shape for shape in found if shape is not None))


def _smallest(need: Need, kind: Kind, tokens_per_s: float) -> Shape | None:
    for gpus in sorted(need.splits):
        memory_mib = ceil((need.weights_mib + need.cache_mib) / gpus) + need.fixed_mib
        if memory_mib > kind.usable_mib:
            continue
        hundredths = max(need.compute, ceil(WHOLE * memory_mib / kind.usable_mib)) if gpus == 1 else WHOLE
        return Shape(kind.name, gpus, hundredths, kind.usable_mib if hundredths == WHOLE else memory_mib, tokens_per_s)
    return None
