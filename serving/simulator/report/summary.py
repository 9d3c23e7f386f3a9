"""A run's figures: of all calls, by model, by tier, by minute. Pure.

A call is *in time* if its first token was there within its target after it came for the first time: whoever had to come again has
waited since then. A minute is *outside the target* if more than a hundredth of the calls that came in it were not in time.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from serving.simulator.result import End, Result

MINUTE_S = 60.0
TOLERATED = 0.01  # of a minute's calls
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class CallFigures:
    """Numbers of calls, each counted once by its end; seconds, nan where no call was served.

    in_time        of `served`
    under_way      at the end of the run
    refusals       how often calls were turned away, those included that came again
    tokens         of prompts and answers that were served
    first_token_s  median, 90th and 99th percentile, from when a call came the last time
    wait_s         the same from when it came for the first time
    minutes        in which calls came that have a target
    outside        of `minutes`
    """

    came: int
    served: int
    in_time: int
    turned_away: int
    failed: int
    under_way: int
    refusals: int
    tokens: int
    first_token_s: tuple[float, float, float]
    wait_s: tuple[float, float, float]
    minutes: int
    outside: int


@dataclass(frozen=True, slots=True)
class FleetFigures:
    """Of one model's replicas, or of all models' together. lost: with their node; broke: by themselves.

    ready_mean, ready_most, waiting_most   over the moments that were noted down
    over_limit, evicted                    refusals by a tenant's limits, and of calls that had waited
    """

    gpu_hours: float
    ready_mean: float
    ready_most: int
    waiting_most: int
    over_limit: int
    evicted: int
    lost: int
    broke: int


@dataclass(frozen=True, slots=True)
class ModelFigures:
    model: str
    calls: CallFigures
    fleet: FleetFigures


@dataclass(frozen=True, slots=True)
class Summary:
    """`tiers`: by the tier's name; tiers without calls are left out."""

    scenario: str
    seed: int
    duration_s: float
    total: ModelFigures
    models: tuple[ModelFigures, ...]
    tiers: tuple[tuple[str, CallFigures], ...]


def summary(result: Result) -> Summary:
    everyone, models, tiers = (
        _Tally(),
        [_Tally() for _ in result.models],
        {tier: _Tally() for tier in dict.fromkeys(result.tiers)},
    )
    calls = result.calls
    for row in result.rows():
        for tally in (everyone, models[calls.model[row]], tiers[result.tiers[calls.tenant[row]]]):
            tally.add(result, row)
    fleets = [_fleet(result, [model]) for model in result.models]
    return Summary(
        scenario=result.scenario,
        seed=result.seed,
        duration_s=result.duration_s,
        total=ModelFigures("", everyone.figures(), _fleet(result, result.models)),
        models=tuple(
            ModelFigures(name, tally.figures(), fleet) for name, tally, fleet in zip(result.models, models, fleets, strict=True)
        ),
        tiers=tuple((tier, tally.figures()) for tier, tally in tiers.items() if tally.came),
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Of figures in order, the smallest that so large a share is not above; nan of none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


@dataclass(slots=True)
class _Tally:
    """Calls as they are counted."""

    came: int = 0
    in_time: int = 0
    refusals: int = 0
    tokens: int = 0
    ends: list[int] = field(default_factory=lambda: [0] * len(End))
    first: array[float] = field(default_factory=lambda: array("d"))
    whole: array[float] = field(default_factory=lambda: array("d"))
    minutes: dict[int, list[int]] = field(default_factory=dict)  # calls, and those of them that were not in time

    def add(self, result: Result, row: int) -> None:
        calls = result.calls
        end, target_s, wait_s = calls.end[row], calls.target_s[row], calls.whole_wait_s(row)
        was_served = end == End.SERVED
        was_in_time = was_served and wait_s <= target_s
        self.came += 1
        self.ends[end] += 1
        self.refusals += calls.turned[row]
        self.in_time += was_in_time
        if was_served:
            self.tokens += calls.prompt_tokens[row] + calls.output_tokens[row]
            self.first.append(calls.first_token_s(row))
            self.whole.append(wait_s)
        if target_s < math.inf and not _is_open(result, row):
            minute = self.minutes.setdefault(int(calls.came[row] // MINUTE_S), [0, 0])
            minute[0] += 1
            minute[1] += not (was_in_time or (end == End.UNDER_WAY and wait_s <= target_s))

    def figures(self) -> CallFigures:
        return CallFigures(
            came=self.came,
            served=self.ends[End.SERVED],
            in_time=self.in_time,
            turned_away=self.ends[End.TURNED_AWAY],
            failed=self.ends[End.FAILED],
            under_way=self.ends[End.UNDER_WAY],
            refusals=self.refusals,
            tokens=self.tokens,
            first_token_s=_percentiles(self.first),
            wait_s=_percentiles(self.whole),
            minutes=len(self.minutes),
            outside=sum(late > TOLERATED * calls for calls, late in self.minutes.values()),
        )


def _is_open(result: Result, row: int) -> bool:
    """The run ended before it could be said whether the call is in time."""
    calls = result.calls
    has_none = calls.first[row] != calls.first[row]
    return calls.end[row] == End.UNDER_WAY and has_none and result.duration_s - calls.came[row] <= calls.target_s[row]


def _percentiles(values: Iterable[float]) -> tuple[float, float, float]:
    ordered = sorted(values)
    return percentile(ordered, 0.5), percentile(ordered, 0.9), percentile(ordered, 0.99)


def _fleet(result: Result, models: Sequence[str]) -> FleetFigures:
    series = [result.series[model] for model in models if model in result.series]
    ready = _together([one.ready for one in series])
    waiting = _together([one.waiting for one in series])

    def at_last(figures: Callable[[int], float]) -> float:
        return math.fsum(figures(index) for index in range(len(series)) if result.at)

    return FleetFigures(
        gpu_hours=at_last(lambda index: series[index].gpu_s[-1]) / _HOUR_S,
        ready_mean=math.fsum(ready) / len(ready) if ready else 0.0,
        ready_most=max(ready, default=0),
        waiting_most=max(waiting, default=0),
        over_limit=int(at_last(lambda index: series[index].over_limit[-1])),
        evicted=int(at_last(lambda index: series[index].evicted[-1])),
        lost=sum(result.lost.get(model, 0) for model in models),
        broke=sum(result.broke.get(model, 0) for model in models),
    )


def _together(columns: Sequence[Sequence[int]]) -> list[int]:
    return [sum(values) for values in zip(*columns, strict=True)]
