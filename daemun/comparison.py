"""Two versions of a model, compared by what the ledger has of their calls: figures with intervals, and what can be said of them.

Pure: entries in, judgements out. The methods, all from textbooks:

- shares (errors, calls that clients left): Wilson's interval; the difference of two by Newcombe's, which joins two of Wilson's
- quantiles (first token, speed): the percentile bootstrap of 4,000 resamples. Of a resample only the order statistic is needed,
  which is a Beta variate; so it is drawn at once, and 100,000 calls cost what 100 do. The seed is fixed: one ledger, one report
- means (output, cost, energy): the normal interval; the ratio of two by the delta method on its logarithm

Figures have 95 % intervals. Five differences are judged, each at 99 %, so that all five intervals hold together with 95 %
(Bonferroni): a candidate that is the same as its model is called different in one report of twenty at most.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from statistics import NormalDist, fmean, variance

from gateway.entry import NOBODY, RETURNED, SHADOW, Entry
from gateway.policy.cost import Price

CONFIDENCE = 0.95
LEAST_CALLS = 100  # of each version, before anything is judged
_LEAST_VALUES = 50  # of one figure
_LEAST_FOR_TAIL = 500  # for a 99th percentile
_RESAMPLES = 4000
_SEED = 20250801


class Verdict(Enum):
    NOT_ENOUGH = "not enough calls"
    SAME = "no difference seen"
    BETTER = "better"
    WORSE = "worse"
    OTHER = "different"


class Aspect(Enum):
    ERRORS = "errors"
    FIRST = "first token, median"
    TAIL = "first token, 99th percentile"
    SPEED = "tokens per second, median"
    OUTPUT = "output tokens, mean"


_JUDGED = 1 - (1 - CONFIDENCE) / len(Aspect)


@dataclass(frozen=True, slots=True)
class Interval:
    value: float
    low: float
    high: float


@dataclass(slots=True)
class Sample:
    """What is known of one version's calls. Those that were rejected, it has not worked for.

    Times are from the call's place on, so that the gateway's queues are no part of them; those and speeds are of streams,
    output, cost and energy of calls that were completed. Costs are at the version's own price, whatever was charged.
    """

    rejected: int = 0
    completed: int = 0
    aborted: int = 0
    failed: int = 0
    first_token_s: list[float] = field(default_factory=list)
    tokens_per_s: list[float] = field(default_factory=list)
    output_tokens: list[float] = field(default_factory=list)
    cost_krw: list[float] = field(default_factory=list)
    energy_wh: list[float] = field(default_factory=list)

    @property
    def worked(self) -> int:
        return self.completed + self.aborted + self.failed


@dataclass(frozen=True, slots=True)
class Judgement:
    """`change` is the candidate's figure less the model's: for errors as it is, else as a part of the model's."""

    aspect: Aspect
    verdict: Verdict
    change: Interval | None = None


def is_shadow(entry: Entry) -> bool:
    return entry.tenant == NOBODY and entry.project == SHADOW


def was_returned(entry: Entry) -> bool:
    return entry.tenant == NOBODY and entry.project == RETURNED


def sample(entries: Iterable[Entry], price: Price) -> Sample:
    """Of one version."""
    found = Sample()
    for entry in entries:
        match entry.outcome:
            case "completed":
                found.completed += 1
                _measure(entry, price, found)
            case "aborted":
                found.aborted += 1
            case "failed":
                found.failed += 1
            case _:
                found.rejected += 1
    for values in (found.first_token_s, found.tokens_per_s):
        values.sort()
    return found


def _measure(entry: Entry, price: Price, found: Sample) -> None:
    found.output_tokens.append(entry.completion_tokens)
    cost = price.cost_ukrw(entry.prompt_tokens, entry.cached_tokens, entry.completion_tokens, entry.reasoning_tokens)
    found.cost_krw.append(cost / 1e6)
    found.energy_wh.append(entry.energy_wh)
    if not entry.stream or entry.first_byte_s is None or entry.queue_s is None:
        return
    found.first_token_s.append(max(0.0, entry.first_byte_s - entry.queue_s))
    speaks_s = entry.duration_s - entry.first_byte_s
    if entry.completion_tokens > 1 and speaks_s > 0:
        found.tokens_per_s.append((entry.completion_tokens - 1) / speaks_s)


def share(part: int, whole: int, confidence: float = CONFIDENCE) -> Interval | None:
    """Wilson's interval. None of nothing."""
    if not whole:
        return None
    z, rate = _z(confidence), part / whole
    middle = (rate + z * z / (2 * whole)) / (1 + z * z / whole)
    half = z / (1 + z * z / whole) * math.sqrt(rate * (1 - rate) / whole + z * z / (4 * whole * whole))
    return Interval(rate, max(0.0, min(rate, middle - half)), min(1.0, max(rate, middle + half)))


def share_change(model: tuple[int, int], candidate: tuple[int, int], confidence: float = _JUDGED) -> Interval | None:
    """Newcombe's interval (his method 10) of the candidate's share less the model's; each a part and its whole."""
    one, other = share(*model, confidence), share(*candidate, confidence)
    if one is None or other is None:
        return None
    change = other.value - one.value
    down = math.hypot(other.value - other.low, one.high - one.value)
    up = math.hypot(other.high - other.value, one.value - one.low)
    return Interval(change, change - down, change + up)


def quantile(ordered: Sequence[float], at: float, confidence: float = CONFIDENCE) -> Interval | None:
    """Of values in their order. None where they are too few to tell."""
    if len(ordered) < (_LEAST_VALUES if at <= 0.9 else 2 * _LEAST_VALUES):
        return None
    drawn = sorted(_resampled(ordered, at, Random(_SEED)))  # noqa: S311 - statistics
    return Interval(ordered[_rank(len(ordered), at) - 1], *_within(drawn, confidence))


def quantile_change(
    model: Sequence[float], candidate: Sequence[float], at: float, confidence: float = _JUDGED
) -> Interval | None:
    """The candidate's over the model's, less 1. None where either's values are too few, or the model's is 0."""
    if min(len(model), len(candidate)) < (_LEAST_VALUES if at <= 0.9 else _LEAST_FOR_TAIL):
        return None
    random = Random(_SEED)  # noqa: S311 - statistics
    pairs = list(zip(_resampled(model, at, random), _resampled(candidate, at, random), strict=True))
    base = model[_rank(len(model), at) - 1]
    if not base or any(not one for one, _ in pairs):
        return None
    drawn = sorted(other / one - 1 for one, other in pairs)
    return Interval(candidate[_rank(len(candidate), at) - 1] / base - 1, *_within(drawn, confidence))


def mean(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    if len(values) < _LEAST_VALUES:
        return None
    middle = fmean(values)
    half = _z(confidence) * math.sqrt(variance(values, middle) / len(values))
    return Interval(middle, middle - half, middle + half)


def mean_change(model: Sequence[float], candidate: Sequence[float], confidence: float = _JUDGED) -> Interval | None:
    """The candidate's over the model's, less 1. None where either's values are too few, or one mean is 0."""
    if min(len(model), len(candidate)) < _LEAST_VALUES:
        return None
    one, other = fmean(model), fmean(candidate)
    if one <= 0 or other <= 0:
        return None
    spread = math.sqrt(variance(model, one) / len(model) / one**2 + variance(candidate, other) / len(candidate) / other**2)
    ratio, factor = other / one, math.exp(_z(confidence) * spread)
    return Interval(ratio - 1, ratio / factor - 1, ratio * factor - 1)


def judge(model: Sample, candidate: Sample) -> list[Judgement]:
    """One for each aspect, in their order."""
    if min(model.worked, candidate.worked) < LEAST_CALLS:
        return [Judgement(aspect, Verdict.NOT_ENOUGH) for aspect in Aspect]
    firsts, speeds = (model.first_token_s, candidate.first_token_s), (model.tokens_per_s, candidate.tokens_per_s)
    return [
        _judged(Aspect.ERRORS, share_change((model.failed, model.worked), (candidate.failed, candidate.worked))),
        _judged(Aspect.FIRST, quantile_change(*firsts, 0.5)),
        _judged(Aspect.TAIL, quantile_change(*firsts, 0.99)),
        _judged(Aspect.SPEED, quantile_change(*speeds, 0.5), more=Verdict.BETTER, less=Verdict.WORSE),
        _judged(Aspect.OUTPUT, mean_change(model.output_tokens, candidate.output_tokens), more=Verdict.OTHER, less=Verdict.OTHER),
    ]


def _judged(
    aspect: Aspect, change: Interval | None, *, more: Verdict = Verdict.WORSE, less: Verdict = Verdict.BETTER
) -> Judgement:
    if change is None:
        return Judgement(aspect, Verdict.NOT_ENOUGH)
    verdict = more if change.low > 0 else less if change.high < 0 else Verdict.SAME
    return Judgement(aspect, verdict, change)


def _resampled(ordered: Sequence[float], at: float, random: Random) -> list[float]:
    """What that quantile is in resamples: the rank-th smallest of n draws is the value below which n times the rank-th smallest
    of n uniform numbers lies.
    """
    n, rank = len(ordered), _rank(len(ordered), at)
    return [ordered[min(n - 1, int(n * random.betavariate(rank, n - rank + 1)))] for _ in range(_RESAMPLES)]


def _rank(n: int, at: float) -> int:
    return max(1, math.ceil(at * n))


def _within(drawn: Sequence[float], confidence: float) -> tuple[float, float]:
    cut = int((1 - confidence) / 2 * len(drawn))
    return drawn[cut], drawn[-1 - cut]


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)
