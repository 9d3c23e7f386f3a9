"""How fast a model can be at most: what must be read and computed, over what the hardware can read and compute.

No kernel reaches these figures, and nothing here knows of the links between GPUs, so that they are bounds and no predictions.
Decoding is bound by memory: every token reads the weights that it uses and its own cache. A prompt is bound by arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

from serving.card import QuantFormat
from serving.planning.gpu import GpuKind
from serving.planning.memory import WEIGHT_BYTES, Layout, sequence_kv_bytes, weight_bytes
from serving.shape import Shape

_WIDE = 2.0


@dataclass(frozen=True, slots=True)
class Rate:
    """Tokens a second at most, and what bounds them."""

    tokens_s: float
    bound: str  # "memory" or "arithmetic"


def used_parameters(shape: Shape) -> int:
    """Those that one token uses, the table of the inputs not counted where it is one of its own: a token reads one row of it."""
    used = shape.need("parameters" if shape.active_parameters is None else "active_parameters")
    if shape.vision_parameters is not None:
        used -= shape.need("vision_parameters")
    if shape.tied_embeddings is False:
        used -= shape.need("vocabulary") * shape.need("hidden_size")
    elif shape.tied_embeddings == "unknown":
        shape.need("tied_embeddings")
    return used


def read_bytes(shape: Shape, quant: QuantFormat, sequences: int) -> float:
    """Weights that a step with so many sequences reads. Experts are taken to be used evenly."""
    output = shape.need("vocabulary") * shape.need("hidden_size")
    used = used_parameters(shape)
    if shape.experts is not None:
        used += round(_further_experts(shape, sequences))
    return min((used - output) * WEIGHT_BYTES[quant] + output * _WIDE, weight_bytes(shape, quant))


def _further_experts(shape: Shape, sequences: int) -> float:
    """Parameters of the experts that a batch uses beyond those that one token uses.

    All parameters are those that every token uses plus `routed` equal parts, of which it uses `active`: that gives a part's size.
    """
    routed, active = shape.need("experts.routed"), shape.need("experts.active")
    part = (shape.need("parameters") - shape.need("active_parameters")) / (routed - active)
    touched = routed * (1 - (1 - active / routed) ** sequences)
    return max(0.0, touched - active) * part


def fastest_decode(
    shape: Shape, quant: QuantFormat, kind: GpuKind, layout: Layout, *, sequences: int, context_tokens: int
) -> Rate:
    """Generated tokens a second of all sequences together, each with so many tokens behind it.

    A stage of a pipeline reads its weights once for each of as many micro-batches as there are stages; one sequence alone passes
    one stage after the other, so that stages make it no faster.
    """
    batches = min(layout.pipeline, sequences)
    in_batch = sequences / batches
    read = read_bytes(shape, quant, max(1, round(in_batch))) + in_batch * sequence_kv_bytes(shape, context_tokens)
    by_memory = sequences * kind.bytes_a_second * layout.tensor / read
    by_arithmetic = arithmetic_rate(kind, quant) * layout.tensor * batches / (2 * used_parameters(shape))
    return _lower(by_memory, by_arithmetic)


def fastest_prefill(shape: Shape, quant: QuantFormat, kind: GpuKind, layout: Layout, *, prompt_tokens: int) -> Rate:
    """Prompt tokens a second, of prompts of that length.

    Two operations a parameter and token, without the output layer, which only a prompt's last token needs; and the products of
    the attention, half of them masked.
    """
    layers = shape.need("layers")
    everywhere = layers if shape.window is None else shape.need("global_layers")
    seen = everywhere * prompt_tokens / 2
    if shape.window is not None:
        seen += (layers - everywhere) * min(prompt_tokens / 2, shape.need("window"))
    inner = used_parameters(shape) - shape.need("vocabulary") * shape.need("hidden_size")
    operations = 2 * inner + 4 * _attention_width(shape) * seen
    return Rate(arithmetic_rate(kind, quant) * layout.gpus / operations, "arithmetic")


def _attention_width(shape: Shape) -> float:
    """The mean width of what is multiplied: of queries with keys, and of weights with values."""
    if shape.latent is None:
        return shape.need("heads") * shape.need("head_size")
    keys = shape.need("latent.nope_size") + shape.need("latent.rope_size")
    return shape.need("heads") * (keys + shape.need("latent.value_size")) / 2


def arithmetic_rate(kind: GpuKind, quant: QuantFormat) -> float:
    """Operations a second in the format that is multiplied: int4 weights are widened to 16 bits, so is fp8 without fp8 units."""
    trillions = {"bf16": kind.bf16, "fp8": kind.fp8 or kind.bf16, "int8": kind.int8 or kind.bf16, "int4": kind.bf16}[quant]
    return trillions * 1e12


def _lower(by_memory: float, by_arithmetic: float) -> Rate:
    return Rate(by_memory, "memory") if by_memory <= by_arithmetic else Rate(by_arithmetic, "arithmetic")
