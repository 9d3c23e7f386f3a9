"""`make bench-overload`: the waiting room before simulated engines in virtual time; prints tables and verdicts."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Annotated

import typer

from benchmarks.overload import virtual, virtual_report
from benchmarks.overload.virtual import LOADS, NOISE, Say
from benchmarks.overload.virtual_report import Runs


class Part(StrEnum):
    LOAD = "load"
    STEP = "step"
    NOISY = "noisy"
    LAUNCH = "launch"


def main(
    only: Annotated[list[Part] | None, typer.Option(help="Run this part alone; repeat for more. Default: all.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each kind, with as many seeds.")] = 3,
) -> None:
    """The gateway's own admission code before simulated engines, in virtual time. The same seeds give the same figures.

    load    0.8 to 10 times what the engines can do, all tiers; and the same calls without a gate
    step    from 0.8 to 10 times at once
    noisy   nine tenants beside a tenth who sends 100 times as much
    launch  10,000 users within a minute to a fleet for 200, who come again when told

    The last lines say for each aim whether it HOLDS or falls SHORT; the exit status is 1 if any does.
    """
    began = time.monotonic()

    def say(what: str) -> None:
        typer.echo(f"overload [{time.monotonic() - began:4.0f} s] {what}")

    runs = Runs()
    for seed in range(1, seeds + 1):
        _run(runs, only or list(Part), seed, say)
    typer.echo("\n" + virtual_report.tables(runs) + "\n")
    judged = virtual_report.verdicts(runs)
    for verdict in judged:
        typer.echo(verdict.line())
    raise typer.Exit(0 if all(verdict.holds for verdict in judged) else 1)


def _run(runs: Runs, parts: list[Part], seed: int, say: Say) -> None:
    per_s = virtual.capacity(seed)
    say(f"seed {seed}: the engines complete {per_s:.1f} calls/s")
    if Part.LOAD in parts:
        for load in LOADS:
            say(f"seed {seed}: {load:g} times that, with and without a gate")
            runs.gated.setdefault(load, []).append(virtual.at_load(load, per_s, seed, gate=True))
            runs.bare.setdefault(load, []).append(virtual.at_load(load, per_s, seed, gate=False))
    if Part.STEP in parts:
        say(f"seed {seed}: a step to 10 times")
        runs.steps.extend(virtual.after_step(per_s, seed))
    if Part.NOISY in parts:
        for times in (0.0, 1.0, NOISE):
            say(f"seed {seed}: a neighbour who sends {times:g} times as much")
            runs.noisy.setdefault(times, []).append(virtual.noisy(times, per_s, seed))
        runs.rivals.append(virtual.rivals(per_s, seed))
    if Part.LAUNCH in parts:
        for apps in (1, 20):
            say(f"seed {seed}: launch day of {apps} apps")
            runs.launches.setdefault(apps, []).append(virtual.launch(apps, seed))


if __name__ == "__main__":
    typer.run(main)
