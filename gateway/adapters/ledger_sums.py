"""What the ledger says was used since a moment, from which limits of days and months go on where nothing better is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

from gateway.ledger_query import Group, LedgerQuery, UsageStore
from gateway.policy.meter import Kind
from gateway.policy.window import DAY_MS, Calendar, Period, first_day_of, month_of, window_at


@dataclass(frozen=True, slots=True)
class Sum:
    """Of one key's calls that a replica has worked for."""

    tenant: str
    project: str
    key_id: str
    calls: int
    tokens: int
    micro_krw: int


class LedgerSums(Protocol):
    async def since(self, unix_s: float) -> Sequence[Sum]:
        """Raises UsageUnavailable."""
        ...


class StoreSums:
    """Of the ledger's store. Entries that are still in the journal are not in it."""

    def __init__(self, store: UsageStore) -> None:
        self._store = store

    async def since(self, unix_s: float) -> list[Sum]:
        groups = (Group.TENANT, Group.PROJECT, Group.KEY, Group.REPLICA)
        return [
            Sum(tenant, project, key_id, found.calls, found.prompt_tokens + found.completion_tokens, found.cost_ukrw)
            for found in await self._store.sums(LedgerQuery(since=unix_s), groups)
            for tenant, project, key_id, replica in (found.group,)
            if replica
        ]


Figures = dict[tuple[str, Kind], tuple[int, int]]  # for each scope and kind the running window, and what was used of it


async def figures_of(sums: LedgerSums, now_ms: int, offset_ms: int) -> Figures:
    figures: Figures = {}
    calendar = Calendar(offset_ms)
    for period, kinds in _KINDS.items():
        window, _ = window_at(period, now_ms, calendar)
        for found in await sums.since(_begin_s(period, now_ms, calendar)):
            for name in product(_scope_ids(found), kinds):
                _, used = figures.get(name, (window, 0))
                figures[name] = window, used + _used(found, name[1])
    return figures


_KINDS = {
    Period.DAY: (Kind.REQUESTS_PER_DAY, Kind.TOKENS_PER_DAY),
    Period.MONTH: (Kind.TOKENS_PER_MONTH, Kind.KRW_PER_MONTH),
}
COUNTED = frozenset().union(*_KINDS.values())


def _scope_ids(found: Sum) -> tuple[str, ...]:
    """Of the levels that it counts for."""
    return f"tenant:{found.tenant}", f"project:{found.tenant}/{found.project}", f"key:{found.key_id}"


def _used(found: Sum, kind: Kind) -> int:
    if kind is Kind.REQUESTS_PER_DAY:
        return found.calls
    return found.micro_krw if kind is Kind.KRW_PER_MONTH else found.tokens


def _begin_s(period: Period, now_ms: int, calendar: Calendar) -> float:
    """When the running window began."""
    day = (now_ms + calendar.offset_ms) // DAY_MS
    first = first_day_of(month_of(day)) if period is Period.MONTH else day
    return (first * DAY_MS - calendar.offset_ms) / 1000
