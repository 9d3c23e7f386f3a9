"""What daemun's autoscaler must reach against Ray Serve's default, and whether it has; and the tables. Pure: scores in, text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.aims import Verdict
from benchmarks.table import table

OWN, CAREFUL, RAY_DEFAULT = "daemun", "daemun, 60 %", "ray, 2 calls"
FEWER_MINUTES, FEWER_HOURS = 5.0, 0.75


@dataclass(frozen=True, slots=True)
class Score:
    """One run. minutes: in which calls came; outside: of these, those in which more than 1 % had no first token in time."""

    scenario: str
    policy: str
    seed: int
    minutes: int
    outside: int
    gpu_hours: float
    calls: int
    in_time: int
    first_token_p99_s: float


@dataclass(frozen=True, slots=True)
class Sum:
    """Of several runs of one policy. `worst_p99_s`: of the run in which it was longest."""

    runs: int
    minutes: int
    outside: int
    gpu_hours: float
    calls: int
    in_time: int
    worst_p99_s: float


def total(scores: Iterable[Score]) -> Sum:
    each = list(scores)
    return Sum(
        runs=len(each),
        minutes=sum(score.minutes for score in each),
        outside=sum(score.outside for score in each),
        gpu_hours=math.fsum(score.gpu_hours for score in each),
        calls=sum(score.calls for score in each),
        in_time=sum(score.in_time for score in each),
        worst_p99_s=max((score.first_token_p99_s for score in each), default=math.nan),
    )


def verdicts(scores: Sequence[Score]) -> list[Verdict]:
    """Over all scenarios and seeds: first the default against Ray's, which is the aim; the others are to be known."""
    names = list(dict.fromkeys(score.policy for score in scores))
    rivals = [name for name in names if name.startswith(RAY_DEFAULT.split(",")[0])]
    owns = [name for name in names if name in (OWN, CAREFUL)]
    return [against(own, rival, total(_of(scores, own)), total(_of(scores, rival))) for own in owns for rival in rivals]


def against(own_name: str, name: str, own: Sum, rival: Sum) -> Verdict:
    """Holds if there are five times fewer minutes outside the target at no more GPU-hours, or a quarter fewer GPU-hours at no
    more minutes outside.
    """
    is_better = own.gpu_hours <= rival.gpu_hours and own.outside * FEWER_MINUTES <= rival.outside and rival.outside > 0
    is_cheaper = own.gpu_hours <= FEWER_HOURS * rival.gpu_hours and own.outside <= rival.outside
    value = (
        f"{own.outside} against {rival.outside} minutes outside, {own.gpu_hours / rival.gpu_hours:.2f} of the GPU-hours"
        if rival.gpu_hours
        else "nothing was run"
    )
    aim = f"minutes<=1/{FEWER_MINUTES:g} at hours<=1, or hours<={FEWER_HOURS:g} at minutes<=1"
    return Verdict(_plain(f"{own_name}_against_{name}"), is_better or is_cheaper, value, aim)


def _plain(name: str) -> str:
    return name.replace(" %", "").replace(",", "").replace(" ", "_")


def tables(scores: Sequence[Score]) -> str:
    """One for each scenario, in the order of the scores, and one for all together."""
    parts = [
        f"## {scenario}\n\n{_table([score for score in scores if score.scenario == scenario])}"
        for scenario in dict.fromkeys(score.scenario for score in scores)
    ]
    return "\n\n".join([*parts, f"## All together\n\n{_table(scores)}"])


def _table(scores: Sequence[Score]) -> str:
    rows = []
    for name in dict.fromkeys(score.policy for score in scores):
        each = list(_of(scores, name))
        whole = total(each)
        rows.append(
            [
                name,
                f"{whole.outside} of {whole.minutes}",
                _span([score.outside for score in each]),
                f"{whole.gpu_hours:.1f}",
                f"{whole.in_time / max(1, whole.calls):.2%}",
                f"{whole.worst_p99_s:.2f}",
            ]
        )
    return table(["policy", "minutes outside", "a run", "GPU-hours", "in time", "worst p99 s"], rows)


def _span(values: Sequence[int]) -> str:
    least, most = min(values), max(values)
    return f"{least}" if least == most else f"{least} to {most}"


def _of(scores: Iterable[Score], name: str) -> Iterable[Score]:
    return (score for score in scores if score.policy == name)
