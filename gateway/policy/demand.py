"""What is asked of one model now: for people, metrics and autoscalers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from gateway.policy.ask import TIERS, Capacity
from gateway.policy.limits import Tier


class Step(Enum):
    """The overload ladder; each step includes those before it. The names are what metrics and `/internal/demand` show."""

    NONE = "none"
    BATCH_WAITS = "batch_waits"
    OUTPUT_CAPPED = "output_capped"
    FALL_BACK = "fall_back"
    REJECTING = "rejecting"


@dataclass(frozen=True, slots=True)
class TierDemand:
    """Tokens are estimates of prompt and output together."""

    waiting: int = 0
    waiting_tokens: int = 0
    running: int = 0
    running_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Demand:
    """Rates are of the last seconds, rejected calls count as arrivals; `expected_wait_s` is that of a free call that comes now.

    rejected: since the start. promised: callers who were told when to come again and have not yet.
    """

    tiers: dict[Tier, TierDemand]
    arrivals_per_s: float
    arrival_tokens_per_s: float
    drain_per_s: float
    drain_tokens_per_s: float
    expected_wait_s: float
    rejected: int
    rejections_per_s: float
    promised: int
    step: Step
    capacity: Capacity


def total(demands: Sequence[Demand]) -> Demand:
    """Of several workers, at least one, each with a waiting room of its own before the same replicas: what is asked adds up, and
    of what all see alike, or what a call may meet at any of them, the most counts.
    """
    steps = list(Step)
    return Demand(
        tiers={tier: _together([demand.tiers[tier] for demand in demands if tier in demand.tiers]) for tier in TIERS},
        arrivals_per_s=math.fsum([demand.arrivals_per_s for demand in demands]),
        arrival_tokens_per_s=math.fsum([demand.arrival_tokens_per_s for demand in demands]),
        drain_per_s=math.fsum([demand.drain_per_s for demand in demands]),
        drain_tokens_per_s=math.fsum([demand.drain_tokens_per_s for demand in demands]),
        expected_wait_s=max([demand.expected_wait_s for demand in demands]),
        rejected=sum([demand.rejected for demand in demands]),
        rejections_per_s=math.fsum([demand.rejections_per_s for demand in demands]),
        promised=sum([demand.promised for demand in demands]),
        step=steps[max([steps.index(demand.step) for demand in demands])],
        capacity=max([demand.capacity for demand in demands], key=_places),
    )


def _together(tiers: Sequence[TierDemand]) -> TierDemand:
    return TierDemand(
        waiting=sum([tier.waiting for tier in tiers]),
        waiting_tokens=sum([tier.waiting_tokens for tier in tiers]),
        running=sum([tier.running for tier in tiers]),
        running_tokens=sum([tier.running_tokens for tier in tiers]),
    )


def _places(capacity: Capacity) -> int:
    return capacity.places
