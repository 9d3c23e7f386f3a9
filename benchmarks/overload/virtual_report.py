"""What the virtual runs came to: tables and verdicts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.aims import Verdict
from benchmarks.aims import at_least as _at_least
from benchmarks.aims import at_most as _at_most
from benchmarks.overload.virtual import CALM, LOADS, LaunchRun, LoadRun, NoisyRun, percentile, settled_after_s, was_true
from benchmarks.table import table


@dataclass
class Runs:
    """By load with and without the gate, by how loud the neighbour was, by the number of apps; one run a seed."""

    gated: dict[float, list[LoadRun]] = field(default_factory=dict)
    bare: dict[float, list[LoadRun]] = field(default_factory=dict)
    steps: list[tuple[float, float]] = field(default_factory=list)
    noisy: dict[float, list[NoisyRun]] = field(default_factory=dict)
    rivals: list[float] = field(default_factory=list)
    launches: dict[int, list[LaunchRun]] = field(default_factory=dict)


def verdicts(runs: Runs) -> list[Verdict]:
    judged: list[Verdict] = []
    if runs.gated:
        peak = max(_goodput(runs.gated[load]) for load in runs.gated)
        judged.append(_at_least("goodput_at_2x_of_peak", _goodput(runs.gated[2.0]) / peak, 0.95))
        judged.append(_at_least("goodput_at_10x_of_peak", _goodput(runs.gated[10.0]) / peak, 0.90))
        ratio = _paid_p99(runs.gated[10.0]) / _paid_p99(runs.gated[CALM])
        judged.append(_at_most("paid_p99_first_token_at_10x_of_0.8x", ratio, 1.25))
    if runs.steps:
        judged.append(_at_most("seconds_until_stable_after_step", settled_after_s(runs.steps), 2.0))
    if runs.noisy:
        alone, loud = (_first_p99(runs.noisy[times]) for times in (0.0, max(runs.noisy)))
        judged.append(_at_most("others_p99_beside_noisy_neighbour_of_alone", loud / alone, 1.1))
        judged.append(_at_least("jain_of_others", min(run.fairness for run in runs.noisy[max(runs.noisy)]), 0.99))
        judged.append(_at_most("others_turned_away", sum(run.refused for run in runs.noisy[max(runs.noisy)]), 0))
        judged.append(_at_least("jain_of_rivals", min(runs.rivals), 0.99))
    for apps, launches in sorted(runs.launches.items()):
        served = sum(run.users - run.served for run in launches)
        judged.append(_at_most(f"launch_{apps}_apps_never_served", served, 0))
        judged.append(_at_least(f"launch_{apps}_apps_told_the_truth", min(map(_truth, launches)), 1.0))
    return judged


def tables(runs: Runs) -> str:
    parts = []
    if runs.gated:
        parts.append("## Tokens a second of calls that met their target\n\n" + _load_table(runs.gated, runs.bare))
    if runs.noisy:
        parts.append("## Nine tenants beside one who sends more\n\n" + _noisy_table(runs.noisy))
    if runs.launches:
        parts.append("## 10,000 users within a minute, a fleet for 200\n\n" + _launch_table(runs.launches))
    return "\n\n".join(parts)


def _load_table(gated: Mapping[float, list[LoadRun]], bare: Mapping[float, list[LoadRun]]) -> str:
    columns = ["load", "goodput", "all tokens", "paid p50 ms", "paid p99 ms", "paid served", "no gate: goodput", "paid p99 ms"]
    rows = []
    for load in LOADS:
        runs, without = gated[load], bare[load]
        pooled = [first_s for run in runs for first_s in run.paid_first_s]
        rows.append(
            [
                f"{load:g} ×",
                f"{_goodput(runs):,.0f}",
                f"{median(run.tokens for run in runs):,.0f}",
                _ms(percentile(pooled, 0.5)),
                _ms(percentile(pooled, 0.99)),
                f"{median(run.paid_served for run in runs):.0%}",
                f"{_goodput(without):,.0f}",
                _ms(_paid_p99(without)),
            ]
        )
    return table(columns, rows)


def _noisy_table(noisy: Mapping[float, list[NoisyRun]]) -> str:
    rows = [
        [
            f"{times:g} ×" if times else "not there",
            _ms(percentile([first_s for run in runs for first_s in run.first_s], 0.5)),
            _ms(_first_p99(runs)),
            f"{sum(run.refused for run in runs)} of {sum(run.calls for run in runs)}",
            f"{min(run.fairness for run in runs):.4f}",
        ]
        for times, runs in sorted(noisy.items())
    ]
    return table(["the tenth sends", "others p50 ms", "others p99 ms", "turned away", "Jain, the worst seed"], rows)


def _launch_table(launches: Mapping[int, list[LaunchRun]]) -> str:
    rows = [
        [
            f"{apps}",
            f"{min(run.served for run in runs):,}",
            f"{median(run.at_once for run in runs):,.0f}",
            f"{median(run.told for run in runs):,.0f}",
            f"{max(run.most_told for run in runs)}",
            f"{min(map(_truth, runs)):.2%}",
            f"{median(run.took_s for run in runs):.0f}",
        ]
        for apps, runs in sorted(launches.items())
    ]
    return table(
        ["apps", "served", "at once or from the queue", "told a time", "times at most", "came true", "all done, s"], rows
    )


def _truth(run: LaunchRun) -> float:
    """Of those who were told a time: for whom the last that they were told came true."""
    return sum(was_true(error_s, told_s) for error_s, told_s in run.told_errors) / max(1, len(run.told_errors))


def _goodput(runs: Sequence[LoadRun]) -> float:
    return median(run.goodput for run in runs)


def _paid_p99(runs: Sequence[LoadRun]) -> float:
    return percentile([first_s for run in runs for first_s in run.paid_first_s], 0.99)


def _first_p99(runs: Sequence[NoisyRun]) -> float:
    return percentile([first_s for run in runs for first_s in run.first_s], 0.99)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.0f}" if seconds == seconds else "–"
