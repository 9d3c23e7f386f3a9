"""What is asked of one model now: for people, metrics and autoscalers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from gateway.policy.ask import Capacity
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
