"""What is asked of the ledger, the sums that it answers with, and what every store of it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta, timezone
from enum import Enum
from typing import Protocol

from gateway.entry import Entry

SEOUL = timezone(timedelta(hours=9), "KST")  # Asia/Seoul, which has had no summer time since 1988
_EPOCH = date(1970, 1, 1).toordinal()
Row = tuple[object, ...]  # an entry's fields in their order
Rest = Callable[[], None]


class Group(Enum):
    """By what sums are made. Days are Asia/Seoul's."""

    DAY = "day"
    TENANT = "tenant"
    PROJECT = "project"
    KEY = "key"
    MODEL = "model"
    TIER = "tier"
    OUTCOME = "outcome"
    REPLICA = "replica"
    CONTINUED = "continued"


@dataclass(frozen=True, slots=True)
class LedgerQuery:
    """Calls that came from `since` on and before `until`, in seconds since the epoch. None: whatever it is."""

    since: float = 0.0
    until: float = 4e9
    tenant: str | None = None
    project: str | None = None
    key_id: str | None = None
    model: str | None = None
    tier: str | None = None
    outcome: str | None = None
    asked: str | None = None


@dataclass(frozen=True, slots=True)
class UsageSum:
    """Over the calls that have `group` in common: values in the order of the groups asked for, days as 2026-11-22.

    `estimated` is how many of the calls have counts that are estimates.
    """

    group: tuple[str, ...]
    calls: int = 0
    completed: int = 0
    aborted: int = 0
    rejected: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cost_ukrw: int = 0
    estimated: int = 0
    energy_wh: float = 0.0


class RowRefused(Exception):
    """The store can be used, but does not take this; trying again would not help."""


class LedgerStore(Protocol):
    """One at a time. All raise StoreUnusable where the store cannot be used now; the next call tries again."""

    def write(self, rows: Sequence[Row], rest: Rest = ...) -> None:
        """For good, all or none; an entry that is there already stays as it is. Raises RowRefused.

        `rest` is called behind each part of it. Where events are sent, each new entry of a tenant is put into the outbox with it.
        """
        ...

    def sums(self, query: LedgerQuery, groups: Sequence[Group]) -> list[UsageSum]:
        """In the order of their groups. Without groups, one sum."""
        ...

    def entries(self, query: LedgerQuery, last: int) -> list[Entry]:
        """The newest, newest first."""
        ...

    def holds(self, ids: Sequence[str]) -> set[str]:
        """Which of these are there."""
        ...

    def take_events(self, most: int, now: float, until: float) -> list[Entry]:
        """The oldest that are due, which nobody else gets before `until`."""
        ...

    def drop_events(self, ids: Sequence[str]) -> None:
        """They were delivered."""
        ...

    def put_back_events(self, ids: Sequence[str], due_at: float) -> None: ...

    def count_events(self) -> int:
        """That were not delivered yet."""
        ...

    def close(self) -> None: ...


class UsageStore(Protocol):
    """The ledger as the gateway reads it: sums alone, and never in anybody's way."""

    async def sums(self, query: LedgerQuery, groups: Sequence[Group]) -> list[UsageSum]:
        """Over the ledger, in the order of their groups. Raises UsageUnavailable."""
        ...


def day_of(number: int) -> str:
    """A day's name from its number since the epoch."""
    return date.fromordinal(_EPOCH + number).isoformat()
