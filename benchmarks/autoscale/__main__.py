"""`make bench-autoscale`: daemun's autoscaler against Ray Serve's, KEDA's and an oracle, in the simulator; prints verdicts."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.autoscale.aims import Score, tables, verdicts
from benchmarks.autoscale.contest import POLICIES, contest
from benchmarks.autoscale.scenarios import scenarios

TRACE = Path("../shared/traces/AzureLLMInferenceTrace_conv.csv")


def main(
    seeds: Annotated[int, typer.Option(min=1, help="As many runs of each scenario for each policy.")] = 5,
    only: Annotated[list[str] | None, typer.Option(help="Scenarios by name; all if not given.")] = None,
    trace: Annotated[
        Path, typer.Option(help="A real hour in Azure's or BurstGPT's format; left out where it is absent.")
    ] = TRACE,
    processes: Annotated[int, typer.Option(min=1, help="At once.")] = os.cpu_count() or 1,
) -> None:
    """The same calls come to every policy. The last lines say against whom the aim HOLDS or falls SHORT; the exit status is 1 if
    it falls short against Ray's default.
    """
    began = time.monotonic()

    def say(what: str) -> None:
        typer.echo(f"autoscale [{time.monotonic() - began:4.0f} s] {what}", err=True)

    if not trace.is_file():
        say(f"without the real hour: there is no {trace}")
    played = [each for each in scenarios(trace if trace.is_file() else None) if not only or each.name in only]
    if not played:
        raise typer.BadParameter(f"there are no scenarios {', '.join(only or ())}", param_hint="--only")
    names, scores = [each.name for each in played], list[Score]()
    for score in contest(played, range(1, seeds + 1), processes):
        scores.append(score)
        say(f"{score.scenario}, seed {score.seed}, {score.policy}: {score.outside} minutes, {score.gpu_hours:.2f} GPU-hours")
    policies = list(POLICIES)
    scores.sort(key=lambda score: (names.index(score.scenario), policies.index(score.policy), score.seed))
    typer.echo(tables(scores) + "\n")
    judged = verdicts(scores)
    for verdict in judged:
        typer.echo(verdict.line())
    raise typer.Exit(0 if judged and judged[0].holds else 1)


if __name__ == "__main__":
    typer.run(main)
