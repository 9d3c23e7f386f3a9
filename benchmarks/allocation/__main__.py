"""`make bench-allocation`: plans for a national fleet of 10,000 GPUs, timed on one core; prints verdicts."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from benchmarks.allocation.aims import verdicts
from benchmarks.allocation.course import course


def main(seeds: Annotated[int, typer.Option(min=1, help="Fleets, with as many seeds.")] = 3) -> None:
    """10,000 GPUs of five kinds, 200 models, 500 teams of which five reserve 512 GPUs each for half a year.

    Times are processor time of this process. The last lines say for each aim whether the worst fleet HOLDS it or falls SHORT; the
    exit status is 1 if any does.
    """
    began = time.monotonic()

    def say(what: str) -> None:
        typer.echo(f"allocation [{time.monotonic() - began:4.0f} s] {what}")

    judged = verdicts([course(seed, say) for seed in range(1, seeds + 1)])
    for verdict in judged:
        typer.echo(verdict.line())
    raise typer.Exit(0 if all(verdict.holds for verdict in judged) else 1)


if __name__ == "__main__":
    typer.run(main)
