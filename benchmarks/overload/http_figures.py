"""From calls to figures: what a run at a load was like, and whether it may be counted at all. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, nan
from statistics import median

from benchmarks.overload.http_plan import Call, LoadPlan

MOST_LATE_MEDIAN_S, MOST_LATE_P99_S = 0.010, 0.050


@dataclass(frozen=True, slots=True)
class TierFigures:
    """Of the calls of one tier that were due while it was measured. `first_s`: sorted, of all that got a first token."""

    name: str
    asked: int
    first_s: tuple[float, ...]
    in_time: int

    def first_percentile(self, percent: float) -> float:
        return percentile(self.first_s, percent)


@dataclass(frozen=True, slots=True)
class RunFigures:
    """One run: one target, one load, one seed.

    refused     turned away by a status with or without Retry-After, or in the stream after a wait
    unfinished  no first token and no word by the end
    failed      anything else: broken connections, other statuses
    goodput     tokens a second of calls whose first token was in time, while it was measured
    """

    asked: int
    refused: int
    with_retry_after: int
    evicted: int
    unfinished: int
    failed: int
    failures: Mapping[str, int]
    tokens_per_s: float
    goodput: float
    tiers: tuple[TierFigures, ...]
    late_median_s: float
    late_p99_s: float

    @property
    def counts(self) -> bool:
        """Whether the generator kept its schedule."""
        return self.late_median_s <= MOST_LATE_MEDIAN_S and self.late_p99_s <= MOST_LATE_P99_S

    def tier(self, name: str) -> TierFigures:
        return next(tier for tier in self.tiers if tier.name == name)


def of_run(plan: LoadPlan, calls: Sequence[Call]) -> RunFigures:
    begin, end = plan.warm_s, plan.warm_s + plan.seconds
    asked = [call for call in calls if begin <= call.due_s < end]
    refused = [call for call in asked if is_refused(call)]
    failures: dict[str, int] = {}
    for call in filter(is_failed, asked):
        kind = f"status {call.status} {call.error}".strip() if not call.broken else f"broken after status {call.status}"
        failures[kind] = failures.get(kind, 0) + 1
    late = [call.late_s for call in calls]
    good = sum(call.tokens for call in calls if in_time(plan, call))
    return RunFigures(
        asked=len(asked),
        refused=len(refused),
        with_retry_after=sum(call.retry_after_s is not None for call in refused),
        evicted=sum(is_evicted(call) for call in asked),
        unfinished=sum(
            call.first_s is None and not is_refused(call) and not is_evicted(call) and not is_failed(call) for call in asked
        ),
        failed=sum(failures.values()),
        failures=failures,
        tokens_per_s=sum(call.tokens for call in calls) / plan.seconds,
        goodput=good / plan.seconds,
        tiers=tuple(_tier(plan, index, asked) for index in range(len(plan.tiers))),
        late_median_s=percentile(late, 50),
        late_p99_s=percentile(late, 99),
    )


def in_time(plan: LoadPlan, call: Call) -> bool:
    return call.first_s is not None and call.first_s <= plan.tiers[call.tier].target_s and not is_failed(call)


def is_refused(call: Call) -> bool:
    """Turned away as it should be: by a status that says so."""
    return call.status in (429, 503)


def is_evicted(call: Call) -> bool:
    """Turned away in the stream, after a wait."""
    return call.status == 200 and call.first_s is None and bool(call.error)


def is_failed(call: Call) -> bool:
    if is_refused(call) or is_evicted(call):
        return False
    return call.broken or call.status not in (0, 200) or bool(call.error)


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile; infinite where there is nothing, since nothing came."""
    if not values:
        return inf
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]


def pooled(runs: Sequence[RunFigures], tier: str, percent: float) -> float:
    """Over the calls of several seeds together."""
    return percentile([first for run in runs for first in run.tier(tier).first_s], percent)


def middle(values: Sequence[float]) -> float:
    return median(values) if values else nan


def _tier(plan: LoadPlan, index: int, asked: Sequence[Call]) -> TierFigures:
    mine = [call for call in asked if call.tier == index]
    firsts = tuple(sorted(call.first_s for call in mine if call.first_s is not None))
    return TierFigures(plan.tiers[index].name, len(mine), firsts, sum(in_time(plan, call) for call in mine))
