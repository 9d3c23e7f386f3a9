"""What a call asks of a model's replicas, what these hold, and the rules between the two. Facts only; `admission` decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from gateway.policy.limits import Tier

Ticket = NewType("Ticket", int)

# A token that is made costs an engine more than one that is read. The weights are those of the paper named in `fair_queue`.
PROMPT_WEIGHT, OUTPUT_WEIGHT = 1.0, 2.0


TIERS = (Tier.RESERVED, Tier.PAID, Tier.FREE, Tier.BATCH)  # by number, the first served first


@dataclass(frozen=True, slots=True)
class Ask:
    """Tokens are estimates; `patience_s` is the request's own longest wait. `caller`: which of the tenant's clients it is, as far
    as one can tell, so that the one who comes again is known from one who comes for the first time; empty: any of them.
    """

    tenant: str
    tier: Tier
    prompt_tokens: int
    output_tokens: int
    weight: float = 1.0
    patience_s: float | None = None
    caller: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """The waiting room's settings.

    most_waiting            calls of all tenants that may wait
    busy_s, cold_s          longest wait while replicas are ready, and while there is none
    batch_s                 the same for the batch tier, in both cases
    prompt_s                the same of a reserved or paid call beyond its tier's share, unless it brings its own patience
    target_first_token_s    from sending a call to an engine to its first token; half of it is where the engine counts as late
    free_output_cap_tokens  output allowance of free calls under sustained overload
    *_share                 guaranteed shares of the drain rate; what a tier does not use, the others may
    """

    most_waiting: int = 1024
    busy_s: float = 30.0
    cold_s: float = 120.0
    batch_s: float = 600.0
    prompt_s: float = 0.0
    target_first_token_s: float = 2.0
    free_output_cap_tokens: int = 256
    reserved_share: float = 0.4
    paid_share: float = 0.4
    free_share: float = 0.2


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the ready replicas hold together.

    places: calls at once. tokens: KV cache, 0 if it is not known. starting: replicas on their way. replicas: the ready ones.
    """

    places: int
    tokens: int = 0
    starting: int = 0
    replicas: int = 1


def cost_of(prompt_tokens: int, output_tokens: int) -> float:
    return PROMPT_WEIGHT * prompt_tokens + OUTPUT_WEIGHT * output_tokens
