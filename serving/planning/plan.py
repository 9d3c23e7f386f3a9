"""From a model and some GPUs to an answer: does it fit, spread how, with room for how much, and how fast at most.

A part of the answer that a missing figure makes impossible is left out and named in `unanswered`; the rest stands.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from serving.card import QuantFormat
from serving.planning.gpu import Gpus
from serving.planning.memory import (
    USABLE,
    Layout,
    gib,
    kv_share,
    sequence_kv_bytes,
    step_bytes,
    weight_bytes,
)
from serving.planning.roofline import Rate, fastest_decode, fastest_prefill
from serving.shape import NotKnown, Shape

T = TypeVar("T")
LARGEST_TENSOR = 8  # GPUs of one server; beyond, layers are split over stages
MOST_GPUS = 64  # how far a remedy is looked for


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: this model, in this format, with sequences of this length, on these GPUs."""

    shape: Shape
    gpus: Gpus
    quant: QuantFormat
    context_tokens: int


@dataclass(frozen=True, slots=True)
class Room:
    """One replica's memory on its fullest GPU, in bytes. `tokens` and `calls` are None where the cache's width is unknown."""

    layout: Layout
    usable: float
    weights: float
    step: float | None
    sequence: float | None  # the cache of one sequence of the asked length
    tokens: int | None
    calls: int | None

    @property
    def cache(self) -> float:
        return self.usable - self.weights - (self.step or 0.0)

    @property
    def fits(self) -> bool:
        """The weights and at least one sequence. Where the cache's width is unknown: the weights."""
        return self.cache > 0 if self.calls is None else self.calls >= 1


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer. `chosen` is the replica that was taken of all `rooms` that were looked at; None where none fits."""

    question: Question
    rooms: tuple[Room, ...]
    chosen: Room | None
    decode_one: Rate | None = None
    decode_full: Rate | None = None
    prefill: Rate | None = None
    remedies: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = field(default=())

    @property
    def replicas(self) -> int:
        """How many of the chosen replicas the GPUs carry."""
        return self.question.gpus.count // self.chosen.layout.gpus if self.chosen else 0


def make_plan(question: Question) -> Plan:
    """Raises NotKnown where not even the weights can be weighed."""
    missing: dict[str, str] = {}
    rooms = tuple(_room(question, layout, missing) for layout in layouts(question.shape, question.gpus.count))
    chosen = _choose([room for room in rooms if room.fits], question.gpus.count)
    if question.shape.heads == "unknown" and question.gpus.count > 1:
        _noted("Over how many GPUs a layer can be split", lambda: question.shape.need("heads"), missing)
    if chosen is None:
        return Plan(question, rooms, None, remedies=tuple(_remedies(question)), unanswered=tuple(missing.values()))
    rates = _rates(question, chosen, missing)
    return Plan(question, rooms, chosen, *rates, unanswered=tuple(missing.values()))


def _choose(fitting: list[Room], gpus: int) -> Room | None:
    """As many replicas as there can be, each spread over its even share of the GPUs: over tensors first, then over few stages."""
    if not fitting:
        return None
    smallest = min(room.layout.gpus for room in fitting)
    share = gpus // (gpus // smallest)
    return max(
        (room for room in fitting if room.layout.gpus <= share), key=lambda room: (room.layout.tensor, -room.layout.pipeline)
    )


def layouts(shape: Shape, gpus: int) -> Iterator[Layout]:
    """Every way to spread one replica over at most so many GPUs that vLLM takes: heads divide evenly, a stage has a layer."""
    for tensor in range(1, min(gpus, LARGEST_TENSOR) + 1):
        if splits(shape, tensor):
            stages = gpus // tensor if shape.layers == "unknown" else min(gpus // tensor, shape.need("layers"))
            yield from (Layout(tensor, pipeline) for pipeline in range(1, stages + 1))


def splits(shape: Shape, tensor: int) -> bool:
    """Whether each layer can be split over so many GPUs. An unknown width does not stand in the way of a power of two."""
    if tensor & (tensor - 1):  # cards come in powers of two, and so do heads
        return False
    widths = (shape.heads, shape.intermediate_size, shape.experts.intermediate_size if shape.experts else None)
    return all(width in (None, "unknown") or int(width or 0) % tensor == 0 for width in widths)


def room_for(question: Question, layout: Layout) -> Room:
    """One layout's memory. Raises NotKnown where the weights cannot be weighed."""
    return _room(question, layout, {})


def why_not(question: Question, layout: Layout | None = None) -> str | None:
    """Why these GPUs cannot carry the model, in one sentence; None where they can, or where a missing figure leaves it open."""
    try:
        rooms = [room_for(question, layout)] if layout else list(_rooms(question))
    except NotKnown:
        return None
    if not rooms or any(room.fits for room in rooms):
        return None
    return shortage(question, max(rooms, key=lambda room: (room.cache, room.layout.gpus)))


def shortage(question: Question, room: Room) -> str:
    """What is too much, of which there is how little."""
    on = f"{room.layout.gpus} × {question.gpus.kind.name}"
    if room.cache <= 0:
        needed = "weights" if room.step is None else "weights and workspace"
        return (
            f"it does not fit on {on} in {question.quant}: the {needed} take {gib(room.weights + (room.step or 0))} of a GPU "
            f"that gives an engine {gib(room.usable)}"
        )
    return (
        f"it does not fit on {on} in {question.quant}: beside the weights there is room for {room.tokens:,} tokens of one, "
        f"not of {question.context_tokens:,}"
    )


def _room(question: Question, layout: Layout, missing: dict[str, str]) -> Room:
    shape, kind = question.shape, question.gpus.kind
    weights = weight_bytes(shape, question.quant) / layout.gpus
    usable = kind.memory_bytes * USABLE
    step = _noted("The workspace of a step", lambda: step_bytes(shape, layout, kind.batched_tokens), missing)
    sequence = _noted(
        "The cache, and so how many tokens and calls at once",
        lambda: sequence_kv_bytes(shape, question.context_tokens) * kv_share(shape, layout),
        missing,
    )
    room = Room(layout, usable, weights, step, sequence, None, None)
    if sequence is None:
        return room
    calls = max(0, math.floor(room.cache / sequence))
    tokens = calls * question.context_tokens or _longest(question, room)
    return Room(layout, usable, weights, step, sequence, tokens, calls)


def _longest(question: Question, room: Room) -> int:
    """Tokens of the longest sequence for which there is room, up to the asked length."""
    share = kv_share(question.shape, room.layout)
    fitting = bisect.bisect_right(
        range(question.context_tokens + 1), room.cache, key=lambda tokens: sequence_kv_bytes(question.shape, tokens) * share
    )
    return max(0, fitting - 1)


def _rates(question: Question, room: Room, missing: dict[str, str]) -> tuple[Rate | None, Rate | None, Rate | None]:
    shape, quant, kind, context = question.shape, question.quant, question.gpus.kind, question.context_tokens

    def decode(sequences: int) -> Rate:
        return fastest_decode(shape, quant, kind, room.layout, sequences=sequences, context_tokens=context)

    return (
        _noted("The fastest decoding", lambda: decode(1), missing),
        _noted("The fastest decoding", lambda: decode(room.calls or 1), missing) if room.calls else None,
        _noted("The fastest prefill", lambda: fastest_prefill(shape, quant, kind, room.layout, prompt_tokens=context), missing),
    )


def _noted(what: str, reckon: Callable[[], T], missing: dict[str, str]) -> T | None:
    """The figure, or None and a note of what is missing for it."""
    try:
        return reckon()
    except NotKnown as gap:
        missing.setdefault(what, f"{what} cannot be reckoned: {gap}")
        return None


def _remedies(question: Question) -> Iterator[str]:
    """What would make it fit: more of the same GPUs, narrower weights, or shorter sequences."""
    if more := _enough(question):
        yield f"--gpu {question.gpus.kind.name}:{more}"
    narrower: tuple[QuantFormat, ...] = ("fp8", "int4")
    for quant in narrower:
        try:
            if quant != question.quant and any(room.fits for room in _rooms(replace(question, quant=quant))):
                yield f"--quant {quant}"
        except NotKnown:
            continue
    longest = max((room.tokens or 0 for room in _rooms(question)), default=0)
    if longest >= 1024:
        yield f"--context {longest}"


def _enough(question: Question) -> int | None:
    """The fewest GPUs of the kind that carry it."""
    counts = (1 << power for power in range(MOST_GPUS.bit_length()))
    for count in counts:
        if count > question.gpus.count and why_not(replace(question, gpus=Gpus(question.gpus.kind, count))) is None:
            return count
    return None


def _rooms(question: Question) -> Iterator[Room]:
    """Every layout's memory. Raises NotKnown where the weights cannot be weighed."""
    return (room_for(question, layout) for layout in layouts(question.shape, question.gpus.count))
