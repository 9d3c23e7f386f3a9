"""A plan as people and programs read it: the answer first, then the arithmetic that leads to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from serving.planning.memory import STEP_SEQUENCES, USABLE, WEIGHT_BYTES, gib, sequence_kv_bytes
from serving.planning.plan import Plan, Room, shortage
from serving.planning.roofline import Rate
from serving.shape import NotKnown
from serving.spec import ModelSpec


def plan_as_text(spec: ModelSpec, plan: Plan) -> str:
    return "\n".join(_lines(spec, plan))


def plan_as_json(spec: ModelSpec, plan: Plan) -> dict[str, Any]:
    asked, room = plan.question, plan.chosen
    return {
        "model": spec.id,
        "gpus": {"kind": asked.gpus.kind.name, "count": asked.gpus.count},
        "quant": asked.quant,
        "context_tokens": asked.context_tokens,
        "fits": room is not None,
        "replicas": plan.replicas,
        "replica": None if room is None else _room_as_json(room),
        "decode_one_tokens_s": _rate(plan.decode_one),
        "decode_full_tokens_s": _rate(plan.decode_full),
        "prefill_tokens_s": _rate(plan.prefill),
        "remedies": list(plan.remedies),
        "unanswered": list(plan.unanswered),
        "served": spec.support.served,
    }


def _room_as_json(room: Room) -> dict[str, Any]:
    return {
        "tensor_parallel": room.layout.tensor,
        "pipeline_parallel": room.layout.pipeline,
        "usable_bytes_per_gpu": round(room.usable),
        "weight_bytes_per_gpu": round(room.weights),
        "step_bytes_per_gpu": None if room.step is None else round(room.step),
        "sequence_bytes_per_gpu": None if room.sequence is None else round(room.sequence),
        "concurrent_tokens": room.tokens,
        "concurrent_calls": room.calls,
    }


def _rate(rate: Rate | None) -> float | None:
    return None if rate is None else round(rate.tokens_s, 1)


def _lines(spec: ModelSpec, plan: Plan) -> Iterator[str]:
    asked = plan.question
    head = f"{spec.title} on {asked.gpus}, weights in {asked.quant}, calls of {asked.context_tokens:,} tokens"
    yield head
    if plan.chosen is None:
        yield from _refusal(plan)
    else:
        yield from _answer(spec, plan, plan.chosen)
    for gap in plan.unanswered:
        yield f"unanswered     {gap}"
    if not spec.support.served and spec.support.reason:
        yield f"but            the pinned vLLM does not serve it: {spec.support.reason.en}"
        yield f"               {spec.support.reason.ko}"


def _refusal(plan: Plan) -> Iterator[str]:
    if not plan.rooms:
        yield "fits           no: the model's widths do not split over these GPUs · 불가능: 이 GPU들로 나눌 수 없습니다"
        return
    widest = max(plan.rooms, key=lambda room: (room.cache, room.layout.gpus))
    yield f"fits           no: {shortage(plan.question, widest)} · 불가능: 메모리가 부족합니다"
    yield from _memory(plan, widest)
    for remedy in plan.remedies:
        yield f"would do       {remedy}"


def _answer(spec: ModelSpec, plan: Plan, room: Room) -> Iterator[str]:
    layout, replicas = room.layout, plan.replicas
    spread = f"tensor parallel {layout.tensor}, pipeline parallel {layout.pipeline}"
    idle = plan.question.gpus.count - replicas * layout.gpus
    verdict = "yes" if room.calls is not None else "the weights do, for the cache see below"
    yield f"fits           {verdict}: {replicas} replica{'s' if replicas > 1 else ''} of {layout.gpus} GPU, {spread} · 가능" + (
        f"; {idle} GPU idle" if idle else ""
    )
    yield from _memory(plan, room)
    if room.calls is not None and room.tokens is not None:
        each = f"{room.tokens:,} tokens, {room.calls:,} calls of {plan.question.context_tokens:,} at once"
        yield f"room           {each}, in each replica"
    if plan.decode_one:
        yield f"decode         at most {plan.decode_one.tokens_s:,.0f} tokens/s for one call (bound by {plan.decode_one.bound})"
    if plan.decode_full:
        full = plan.decode_full
        yield f"               at most {full.tokens_s:,.0f} tokens/s for all {room.calls:,} (bound by {full.bound})"
    if plan.prefill:
        yield f"prefill        at most {plan.prefill.tokens_s:,.0f} tokens/s, prompts of {plan.question.context_tokens:,} tokens"
    yield f"figures of     {plan.question.gpus.kind.source}; bounds, not predictions · 상한이며 예측이 아닙니다"
    yield f"arguments      {_arguments(spec, plan, room)}"


def _memory(plan: Plan, room: Room) -> Iterator[str]:
    """The arithmetic, for the fullest GPU of a replica."""
    asked, shape = plan.question, plan.question.shape
    per_weight = WEIGHT_BYTES[asked.quant]
    yield f"on each GPU    {gib(asked.gpus.kind.memory_bytes)} × {USABLE} = {gib(room.usable)} for the engine"
    wide = "" if asked.quant == "bf16" else ", embeddings 2"
    counted = f"{shape.need('parameters'):,} parameters × {per_weight:g} bytes{wide}"
    yield f"  weights      {counted}, over {room.layout.gpus} GPU = {gib(room.weights)}"
    if room.step is not None:
        tokens = asked.gpus.kind.batched_tokens
        yield f"  a step       {tokens:,} tokens and logits of {STEP_SEQUENCES} calls, reckoned = {gib(room.step)}"
    if room.sequence is not None:
        yield f"  one call     {_kv(plan)} = {gib(room.sequence)} of cache"
    if room.step is not None:
        yield f"  for cache    {gib(max(0.0, room.cache))}"


def _kv(plan: Plan) -> str:
    shape, tokens = plan.question.shape, plan.question.context_tokens
    try:
        layers = shape.need("layers")
        if shape.latent is not None:
            width = f"({shape.need('latent.kv_rank')} + {shape.need('latent.rope_size')}) × 2 bytes"
        else:
            width = f"2 × {shape.need('kv_heads')} heads × {shape.need('head_size')} × 2 bytes"
        if shape.window is None:
            return f"{width} × {layers} layers × {tokens:,}, this GPU's share"
        everywhere = shape.need("global_layers")
        local = f"{layers - everywhere} × {min(tokens, shape.need('window')):,}"
        return f"{width} × ({everywhere} layers × {tokens:,} + {local}), this GPU's share"
    except NotKnown:
        return f"{sequence_kv_bytes(shape, tokens):,.0f} bytes"


def _arguments(spec: ModelSpec, plan: Plan, room: Room) -> str:
    """What a spec's engine.extra_args would say."""
    given: dict[str, Any] = {"max_model_len": plan.question.context_tokens}
    if room.layout.tensor > 1:
        given["tensor_parallel_size"] = room.layout.tensor
    if room.layout.pipeline > 1:
        given["pipeline_parallel_size"] = room.layout.pipeline
    if spec.parsers and spec.parsers.reasoning:
        given["reasoning_parser"] = spec.parsers.reasoning
    return ", ".join(f"{name}={value}" for name, value in given.items())
