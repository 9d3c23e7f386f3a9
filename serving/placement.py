"""Which replicas have room on this machine's accelerators, and how Ray and vLLM are told of their parts. Pure.

A spec asks for a part of one accelerator (`accelerator`, 1 is a whole one) or, by tensor or pipeline parallelism, for several.
The allocator decides who has room; Ray counts the same parts and cannot give out more; vLLM is told the same share of memory.

A machine without GPUs can stand in for one with some: `serving.simulated_accelerators` is then a resource of Ray's, and an
accelerator's memory is what KV caches may take.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from serving.allocation import Claim, Facts, Kind, Model, Node, Phase, Shape, State, Team, allocate
from serving.allocation.fleet import WHOLE
from serving.allocation.launch import engine_options
from serving.spec import ModelSpec

Wanted = Sequence[tuple[ModelSpec, int]]  # models and how many replicas of each
NOTHING = State()
RESOURCE = "accelerator"  # Ray's name of a simulated one
_TEAM = "operator"
_SPEED = 1.0  # of each: there is one kind only, so that no other is to be preferred
# Of a GPU only shares are known before vLLM looks at it. What is kept is what vLLM keeps of a whole one by default.
_GPU = Kind(RESOURCE, memory_mib=100_000, kept_mib=8_000)


@dataclass(frozen=True, slots=True)
class Accelerators:
    """`count` of them, each with `memory_gib` for KV caches where they are simulated, None where they are GPUs."""

    count: int
    memory_gib: float | None = None

    @property
    def kind(self) -> Kind:
        return _GPU if self.memory_gib is None else Kind(RESOURCE, memory_mib=math.floor(self.memory_gib * 1024))


@dataclass(frozen=True, slots=True)
class Grant:
    """What one replica is given: Ray's actor options, and vLLM's engine arguments for its share of the memory."""

    actor_options: Mapping[str, object]
    engine_args: Mapping[str, int | float]


def grant(spec: ModelSpec, accelerators: Accelerators | None) -> Grant:
    """`accelerators` None: the model runs on plain CPUs and has the cache of its spec."""
    if accelerators is None:
        return Grant({}, {})
    shape, kind = shape_of(spec, accelerators.kind), accelerators.kind
    if accelerators.memory_gib is not None:
        return Grant({"resources": {RESOURCE: _amount(shape)}}, {"kv_cache_memory_bytes": shape.memory_mib * 2**20})
    if shape.hundredths == WHOLE:
        return Grant({"num_gpus": shape.gpus}, {})
    return Grant({"num_gpus": _amount(shape)}, {"gpu_memory_utilization": engine_options(shape, kind)["gpu_memory_utilization"]})


def shape_of(spec: ModelSpec, kind: Kind) -> Shape:
    """The form of one replica: a part of an accelerator, one, or several."""
    hundredths = round(WHOLE * spec.accelerator)
    return Shape(kind.name, spec.parallel, hundredths, kind.usable_mib * hundredths // WHOLE, _SPEED)


@dataclass(frozen=True, slots=True)
class Room:
    """Of each model's wanted replicas, how many have room, and where: the next question starts from there."""

    fits: Mapping[str, int]
    state: State


def have_room(wanted: Wanted, accelerators: Accelerators, before: State = NOTHING) -> Room:
    """The allocator's word. What had room `before` and is still wanted keeps it; otherwise nobody comes before others."""
    kind = accelerators.kind
    models = {spec.id: Model(spec.id, (shape_of(spec, kind),)) for spec, _ in wanted}
    facts = Facts(
        kinds=(kind,),
        nodes=(Node("this machine", kind.name, accelerators.count),),
        models=tuple(models.values()),
        teams=(Team(_TEAM),),
        claims=tuple(Claim(_TEAM, spec.id, count) for spec, count in wanted if count),
    )
    kept = tuple(one for one in before.replicas if one.model in models and one.shape in models[one.model].shapes)
    plan = allocate(facts, State(kept), 0.0)
    refused = {refusal.model: refusal.count for refusal in plan.refusals}
    placed = tuple(replace(one, phase=Phase.RUNNING, until=None) for one in plan.replicas if one.phase is not Phase.DRAINING)
    return Room({spec.id: count - refused.get(spec.id, 0) for spec, count in wanted}, State(placed))


def without_room(wanted: Wanted, room: Room, accelerators: Accelerators) -> list[str]:
    """A sentence, without its full stop, for each model of which not all replicas have room."""
    used = math.fsum([room.fits[spec.id] * spec.accelerator * spec.parallel for spec, _ in wanted])
    left = f"{accelerators.count - used:.2f} of {accelerators.count}"
    waiting = [(spec, count, count - room.fits[spec.id]) for spec, count in wanted if room.fits[spec.id] < count]
    return [
        f"{spec.id}: {more} of its {count} replicas must wait: each needs {_needs(spec)}, and {left} is left"
        for spec, count, more in waiting
    ]


def _needs(spec: ModelSpec) -> str:
    return f"{spec.parallel} accelerators" if spec.parallel > 1 else f"{spec.accelerator:g} of an accelerator"


def _amount(shape: Shape) -> float:
    return shape.size / WHOLE
