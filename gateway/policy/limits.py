"""Who may use how much: tiers, limits and the levels at which they hold."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Tier(Enum):
    """Service classes, the first served first; each has a guaranteed share, and may use what the others leave idle."""

    RESERVED = "reserved"
    PAID = "paid"
    FREE = "free"
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one tenant, project or key. None: no limit of its own.

    Minutes and days are windows of a fixed length, months the calendar's. Money is in whole KRW, `concurrent` in calls.
    """

    requests_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    concurrent: int | None = None
    tokens_per_month: int | None = None
    krw_per_month: int | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Scope:
    """A level at which limits hold. `id` is unique over all levels, such as `tenant:school` or `key:key_1f`."""

    id: str
    limits: Limits
