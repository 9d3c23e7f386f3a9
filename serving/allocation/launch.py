"""How a placed replica is told to Ray and to vLLM. Pure: this only spells out the options; serving's apps hand them over.

A part of a GPU is Ray's `num_gpus` below 1 and vLLM's `gpu_memory_utilization`. Ray counts the use of a GPU by one number, as a
shape does, so what the plan does not over-commit Ray does not either.
"""

from __future__ import annotations

from math import floor

from serving.allocation.fleet import WHOLE, Kind
from serving.allocation.replica import Replica
from serving.allocation.shape import Shape

_SLIVER = 0.001  # of a resource that only says where: enough to be placed there, too little to use it up


def actor_options(shape: Shape) -> dict[str, object]:
    """For `ray_actor_options`: any node with this kind of GPU will do."""
    return {"num_gpus": _gpus(shape), "resources": {f"accelerator_type:{shape.kind}": _SLIVER}}


def pinned_options(replica: Replica) -> dict[str, object]:
    """As `actor_options`, on the replica's own node; nodes are started with the resource `node-<id>: 1`."""
    return {"num_gpus": _gpus(replica.shape), "resources": {f"node-{replica.node}": _SLIVER}}


def engine_options(shape: Shape, kind: Kind) -> dict[str, int | float]:
    """vLLM's engine arguments, by their Python names: the share of the whole memory that it may take, never rounded up."""
    share = floor(10_000 * shape.memory_mib / kind.memory_mib) / 10_000
    return {"tensor_parallel_size": shape.gpus, "gpu_memory_utilization": share}


def _gpus(shape: Shape) -> int | float:
    return shape.gpus if shape.hundredths == WHOLE else shape.hundredths / WHOLE
