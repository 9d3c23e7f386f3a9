"""What must hold at every load, and whether it did. Pure: results in, verdicts out."""

from __future__ import annotations

from math import nan

from benchmarks.aims import Verdict, at_least, at_most
from benchmarks.gateway.peers import DAEMUN
from benchmarks.overload.http_course import PAID, Results
from benchmarks.overload.http_figures import middle, pooled

CALM, FULL, TWICE, TENFOLD = 0.8, 1.0, 2.0, 10.0


def verdicts(results: Results) -> list[Verdict]:
    """One for each aim for which there are runs; of a run that had to be dismissed, none holds."""
    steps = sorted(step for name, step in results.runs if name == DAEMUN)
    judged = []
    if peak := peak_goodput(results):
        for step, least in ((TWICE, 0.95), (TENFOLD, 0.90)):
            if step in steps:
                judged.append(at_least(f"goodput_at_{step:g}x_of_peak", goodput(results, DAEMUN, step) / peak, least))
    if CALM in steps and TENFOLD in steps:
        calm, tenfold = (pooled(results.runs[DAEMUN, step], PAID, 99) for step in (CALM, TENFOLD))
        judged.append(at_most("paid_p99_first_token_at_10x_of_0.8x", tenfold / calm, 1.25))
    ours = [run for (name, _), runs in results.runs.items() if name == DAEMUN for run in runs]
    if ours:
        refused = sum(run.refused for run in ours)
        told = sum(run.with_retry_after for run in ours) / refused if refused else nan
        judged.append(at_least("refusals_with_retry_after", told, 1.0) if refused else Verdict("refusals", False, "0", ">0"))
        judged.append(at_most("failed_calls", sum(run.failed for run in ours), 0))
    judged.append(at_most("runs_dismissed", results.dismissed, 0))
    return judged


def goodput(results: Results, name: str, step: float) -> float:
    return middle([run.goodput for run in results.runs.get((name, step), ())])


def peak_goodput(results: Results) -> float:
    """The most that daemun reaches at any load."""
    reached = [goodput(results, name, step) for name, step in results.runs if name == DAEMUN]
    return max(reached, default=0.0)
