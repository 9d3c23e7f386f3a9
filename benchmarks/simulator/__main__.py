"""`python -m benchmarks.simulator`: how much faster than real time 2,000 replicas are simulated on one core; prints verdicts."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from statistics import median
from typing import Annotated

import typer

from benchmarks.aims import Verdict, at_least, verdict_table
from benchmarks.simulator.fleet import MODELS, OUTPUT_TOKENS, PROMPT_TOKENS, REPLICAS_EACH, SPEED, fleet
from benchmarks.table import table
from engines import figures as engine_figures
from gateway import compiled
from serving.simulator.result import Result
from serving.simulator.run import Run

LOADS = (20.0, 40.0, 80.0)  # calls a second, to all models together
AIM = 100.0
WARM_S = 400.0  # of virtual time: until then the engines fill


@dataclass(frozen=True, slots=True)
class Timed:
    """times: virtual seconds in a second of processor time. in_flight: calls at the end."""

    times: float
    calls: int
    spent_s: float
    in_flight: int
    fingerprint: str


def timed(calls_per_s: float, duration_s: float, seed: int) -> Timed:
    """From the time when it is warm."""
    run = Run(fleet(calls_per_s, WARM_S + duration_s, seed))
    began: list[tuple[float, int]] = []

    def look(now: float, result: Result) -> None:
        if now >= WARM_S and not began:
            began.append((time.process_time(), len(result.calls)))

    gc.collect()
    gc.freeze()  # as `daemun simulate` does
    gc.set_threshold(200_000, 50, 100)
    result = run.run(look)
    spent_s = time.process_time() - began[0][0]
    gc.unfreeze()
    in_flight = sum(series.running[-1] for series in result.series.values())
    return Timed(duration_s / spent_s, len(result.calls) - began[0][1], spent_s, in_flight, result.fingerprint())


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Times each load is simulated; the median counts.")] = 3,
    seconds: Annotated[float, typer.Option(min=20, help="Of virtual time that are timed.")] = 120.0,
    seed: Annotated[int, typer.Option(min=0)] = 1,
) -> None:
    """2,000 replicas of 40 models. Times are processor time of this process.

    The last lines say for each aim whether it HOLDS or falls SHORT; the exit status is 1 if any does.
    """
    runs = {load: [timed(load, seconds, seed) for _ in range(rounds)] for load in LOADS}
    figures = engine_figures.load("h100-8b").scaled(SPEED)
    most_per_s = figures.calls_per_s(PROMPT_TOKENS, OUTPUT_TOKENS) * MODELS * REPLICAS_EACH
    rows = [
        [
            f"{load:g}",
            f"{load / most_per_s:.0%}",
            f"{of[0].in_flight / (MODELS * REPLICAS_EACH):.1f}",
            f"{median(one.times for one in of):,.0f}",
            f"{min(one.times for one in of):,.0f} to {max(one.times for one in of):,.0f}",
            f"{median(1e6 * one.spent_s / one.calls for one in of):,.0f}",
        ]
        for load, of in runs.items()
    ]
    typer.echo(f"gateway.policy: {'compiled' if compiled.is_running() else 'plain Python'}\n")
    columns = ["calls/s", "of the most", "under way, a replica", "times real time", "rounds", "µs a call"]
    typer.echo(table(columns, rows) + "\n")
    judged = verdicts({load: median(one.times for one in of) for load, of in runs.items()}, runs)
    typer.echo(verdict_table(judged) + "\n")
    for verdict in judged:
        typer.echo(verdict.line())
    raise typer.Exit(0 if all(verdict.holds for verdict in judged) else 1)


def verdicts(times: dict[float, float], runs: dict[float, list[Timed]]) -> list[Verdict]:
    alike = sum(len({one.fingerprint for one in of}) == 1 for of in runs.values()) / len(runs)
    judged = [at_least(f"times_real_time_at_{load:g}_calls_a_second", value, AIM) for load, value in times.items()]
    return [*judged, at_least("runs_of_one_seed_alike", alike, 1.0)]


if __name__ == "__main__":
    typer.run(main)
