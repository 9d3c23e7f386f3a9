"""What the gateway tells of a model, as the autoscaler reads it. Pure: `GET /internal/demand`'s JSON in, figures out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

_BATCH = "batch"


class _Tier(msgspec.Struct):
    waiting: int
    waiting_tokens: int
    running: int
    running_tokens: int


class _Replicas(msgspec.Struct):
    ready: int
    starting: int


class _Model(msgspec.Struct):
    tiers: dict[str, _Tier]
    replicas: _Replicas
    arrivals_per_s: float
    arrival_tokens_per_s: float
    drain_tokens_per_s: float
    rejections_per_s: float
    promised: int


class _Answer(msgspec.Struct):
    models: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Demand:
    """Of one model. Tokens are of prompt and output together, estimated.

    at                     when it was so, in seconds of whatever clock the policy is given
    waiting_tokens         of calls in the waiting room; batch calls, which wait for what is idle, are counted apart
    promised_tokens        of callers who were told when to come again; `promised`: how many they are
    running                calls that have a place
    arrival_tokens_per_s   of calls that came in the last seconds and were not turned away
    drain_tokens_per_s     of calls that ended
    """

    at: float
    waiting_tokens: float = 0.0
    batch_tokens: float = 0.0
    promised_tokens: float = 0.0
    running: int = 0
    arrival_tokens_per_s: float = 0.0
    drain_tokens_per_s: float = 0.0
    ready: int = 0
    starting: int = 0
    promised: int = 0

    @property
    def is_idle(self) -> bool:
        return not (self.waiting_tokens or self.batch_tokens or self.promised_tokens or self.running)


class UnreadableDemand(ValueError):
    """What came is not an answer of `GET /internal/demand`, or does not tell of this model."""


def read_demand(answer: bytes, model: str, at: float) -> Demand:
    """Raises UnreadableDemand."""
    try:
        models = msgspec.json.decode(answer, type=_Answer).models
        if model not in models:
            raise UnreadableDemand(f"the gateway tells nothing of {model}")
        told = msgspec.convert(models[model], _Model)
    except msgspec.DecodeError as error:
        raise UnreadableDemand(f"the gateway's demand cannot be read: {error}") from error
    tiers = [tier for name, tier in told.tiers.items() if name != _BATCH]
    batch = told.tiers.get(_BATCH)
    a_call = told.arrival_tokens_per_s / told.arrivals_per_s if told.arrivals_per_s > 0.0 else 0.0
    return Demand(
        at=at,
        waiting_tokens=float(sum(tier.waiting_tokens for tier in tiers)),
        batch_tokens=float(batch.waiting_tokens) if batch is not None else 0.0,
        promised_tokens=told.promised * a_call,
        running=sum(tier.running for tier in told.tiers.values()),
        arrival_tokens_per_s=max(0.0, told.arrivals_per_s - told.rejections_per_s) * a_call,
        drain_tokens_per_s=told.drain_tokens_per_s,
        ready=told.replicas.ready,
        starting=told.replicas.starting,
        promised=told.promised,
    )
