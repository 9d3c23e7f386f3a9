"""How many bytes a model takes: its weights, its cache of keys and values, and what one step of the engine needs beside them.

Weights and cache are exact but for norms and padding; the step's workspace is reckoned from the widths and not measured. All
functions raise `NotKnown` where a figure is missing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from serving.card import QuantFormat
from serving.planning.gpu import GIB
from serving.shape import Shape

USABLE = 0.92  # of a GPU's memory: vLLM's default for gpu_memory_utilization in 0.29; the rest is for CUDA and others
STEP_SEQUENCES = 256  # sequences whose logits one step holds: vLLM's default on most GPUs
_WIDE = 2.0  # bytes of a 16-bit number
_GROUP = 128  # weights that share one 16-bit scale
# Bytes of one weight of a linear layer. Embeddings, the output layer and an image encoder stay 16 bits wide in all of them.
WEIGHT_BYTES: dict[QuantFormat, float] = {"bf16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5 + _WIDE / _GROUP}


@dataclass(frozen=True, slots=True)
class Layout:
    """How one replica is spread: every layer over `tensor` GPUs, the layers over `pipeline` stages."""

    tensor: int = 1
    pipeline: int = 1

    @property
    def gpus(self) -> int:
        return self.tensor * self.pipeline


def embedding_parameters(shape: Shape) -> int:
    """The table of the inputs and, where it is another, that of the outputs."""
    if shape.tied_embeddings == "unknown":
        shape.need("tied_embeddings")
    return shape.need("vocabulary") * shape.need("hidden_size") * (1 if shape.tied_embeddings else 2)


def weight_bytes(shape: Shape, quant: QuantFormat) -> float:
    """All weights of the model."""
    parameters = shape.need("parameters")
    if quant == "bf16":
        return parameters * _WIDE
    wide = embedding_parameters(shape) + (shape.need("vision_parameters") if shape.vision_parameters is not None else 0)
    return (parameters - wide) * WEIGHT_BYTES[quant] + wide * _WIDE


def layer_kv_bytes(shape: Shape) -> float:
    """What one layer keeps of one token."""
    if shape.latent is not None:
        return (shape.need("latent.kv_rank") + shape.need("latent.rope_size")) * _WIDE
    return 2 * shape.need("kv_heads") * shape.need("head_size") * _WIDE


def sequence_kv_bytes(shape: Shape, tokens: int) -> float:
    """What is kept of a sequence. Layers with a window keep no more than the window."""
    layers = shape.need("layers")
    if shape.window is None:
        return layer_kv_bytes(shape) * layers * tokens
    everywhere = shape.need("global_layers")
    local = (layers - everywhere) * min(tokens, shape.need("window"))
    return layer_kv_bytes(shape) * (everywhere * tokens + local)


def kv_share(shape: Shape, layout: Layout) -> float:
    """The part of a sequence's cache on the fullest GPU. Heads are split; every GPU of a stage keeps a latent vector."""
    layers = shape.need("layers")
    of_layers = math.ceil(layers / layout.pipeline) / layers
    if shape.latent is not None:
        return of_layers
    heads = shape.need("kv_heads")
    return of_layers * math.ceil(heads / layout.tensor) / heads


def step_bytes(shape: Shape, layout: Layout, batched_tokens: int) -> float:
    """Workspace of one step on one GPU: activations of the widest layer for every token, and logits. Reckoned, not measured."""
    hidden, heads = shape.need("hidden_size"), shape.need("heads")
    if shape.latent is None:
        attention = (heads + 2 * shape.need("kv_heads")) * shape.need("head_size")
    else:
        attention = heads * (shape.need("latent.nope_size") + shape.need("latent.rope_size") + shape.need("latent.value_size"))
    wide = [shape.need("intermediate_size")] if shape.intermediate_size not in (None, "unknown") else []
    if shape.experts is not None:
        used = shape.need("experts.active") + shape.experts.shared
        wide.append(used * shape.need("experts.intermediate_size"))
    inner = 2 * max(wide or [shape.need("intermediate_size")])
    activations = batched_tokens * (4 * hidden + (attention + inner) / layout.tensor) * _WIDE
    return activations + STEP_SEQUENCES * shape.need("vocabulary") * 4


def gib(size: float) -> str:
    """For people: 12.3 GiB."""
    return f"{size / GIB:,.1f} GiB"
