"""What the gateway must reach, and whether it has. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan, nan
from statistics import median

from benchmarks.aims import Verdict, at_least, at_most
from benchmarks.gateway import figures as names
from benchmarks.gateway.figures import Figures
from benchmarks.gateway.peers import DAEMUN, LITELLM, SMG, VLLM_ROUTER

_GROWTH_MB, _GROWTH_SHARE = 4.0, 0.05
_Judge = Callable[[str, float, float], Verdict]


@dataclass(frozen=True, slots=True)
class _Aim:
    """The median of `values` must be `at_least` or `at_most` the `bound`."""

    name: str
    judge: _Judge
    bound: float
    values: Callable[[Figures], Sequence[float]]


def _ratio(figure: str, other: str) -> Callable[[Figures], Sequence[float]]:
    return lambda figures: figures.ratios(figure, DAEMUN, other)


def _own(figure: str) -> Callable[[Figures], Sequence[float]]:
    return lambda figures: figures.of(figure, DAEMUN)


_AIMS = (
    _Aim("calls_per_s_vs_vllm_router", at_least, 1.0, _ratio(names.CALLS_PER_S, VLLM_ROUTER)),
    _Aim("calls_per_s_vs_smg", at_least, 2.0, _ratio(names.CALLS_PER_S, SMG)),
    _Aim("calls_per_s_vs_litellm", at_least, 40.0, _ratio(names.CALLS_PER_S, LITELLM)),
    _Aim("added_p50_vs_vllm_router", at_most, 1.5, _ratio(names.ADDED_P50_MS, VLLM_ROUTER)),
    _Aim("streams_per_s_vs_vllm_router", at_least, 1.0, _ratio(names.STREAMS_PER_S, VLLM_ROUTER)),
    _Aim(names.US_PER_CHUNK, at_most, 20.0, _own(names.US_PER_CHUNK)),
    _Aim(names.OPEN_STREAMS, at_least, 10_000, _own(names.OPEN_STREAMS)),
    _Aim(names.OPEN_FAILED, at_most, 0, _own(names.OPEN_FAILED)),
    _Aim(names.KB_PER_STREAM, at_most, 30.0, _own(names.KB_PER_STREAM)),
    _Aim(names.SHORT_P99_MS, at_most, 50.0, _own(names.SHORT_P99_MS)),
)


def verdicts(figures: Figures) -> list[Verdict]:
    """One for each aim for which there are figures."""
    judged = [aim.judge(aim.name, _median(values), aim.bound) for aim in _AIMS if (values := aim.values(figures))]
    memory = figures.of(names.MEMORY_MB, DAEMUN)
    return [*judged, _growth(memory)] if memory else judged


def _median(values: Sequence[float]) -> float:
    """Not a number if one of them is none: such a round cannot be judged, and so neither can the run."""
    return nan if any(map(isnan, values)) else median(values)


def _growth(memory_mb: Sequence[float]) -> Verdict:
    """From the first to the last: at most 5 % or 4 MB, whichever is more."""
    grown, allowed = memory_mb[-1] - memory_mb[0], max(_GROWTH_MB, _GROWTH_SHARE * memory_mb[0])
    return Verdict("memory_growth_mb", grown <= allowed, f"{grown:.1f}", f"<={allowed:.1f}")
