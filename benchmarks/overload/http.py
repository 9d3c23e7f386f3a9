"""`python -m benchmarks.overload.http`: real processes, real sockets, simulated engines; the gateway beside none and LiteLLM."""

from __future__ import annotations

import os
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.gateway import peers, setting
from benchmarks.gateway.peers import DAEMUN, DIRECT
from benchmarks.gateway.processes import GATEWAY_CORE, LOAD_CORE, BenchmarkError
from benchmarks.overload import http_course, http_real, http_report
from benchmarks.overload.http_aims import verdicts
from benchmarks.overload.http_course import SEEDS, STEPS, TARGETS, Plan, Timing
from benchmarks.overload.http_peers import EngineKind

FOLDER = Path(".daemun/bench-overload-http")
DOCUMENT = Path("docs/overload-http.md")
QUICK = Plan(targets=(DAEMUN, DIRECT), steps=(0.8, 10.0), seeds=(1,), timing=Timing(2.0, 8.0, 2.0, 6.0))
REAL = Plan(
    targets=(DAEMUN, DIRECT),
    steps=(0.8, 2.0),
    seeds=(1,),
    timing=Timing(6.0, 8.0, 2.0, 8.0),
    kind=EngineKind("vLLM", 1.0, http_real.SEATS, 1),
)


def main(
    only: Annotated[list[str] | None, typer.Option(help=f"Send to this alone: {', '.join(TARGETS)}; repeat for more.")] = None,
    step: Annotated[list[float] | None, typer.Option(help="Only so many times capacity; repeat for more.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each kind, with as many seeds.")] = len(SEEDS),
    seconds: Annotated[float, typer.Option(min=2, help="How long a run is measured.")] = Timing().seconds,
    quick: Annotated[bool, typer.Option("--quick", help="See in a minute that all works.")] = False,
    real: Annotated[bool, typer.Option("--real", help="The short form against `daemun up`: vLLM with the demo model.")] = False,
) -> None:
    """Offers 0.8, 1, 2 and 10 times what the engines can do, to daemun, to the engines themselves and to LiteLLM. 13 minutes.

    The last lines say for each aim whether it HOLDS or falls SHORT; the exit status is 1 if any does. A complete run writes
    docs/overload-http.md.

    python -m benchmarks.overload.http --only daemun --step 10 --seeds 1
    """
    chosen = Plan(tuple(only or TARGETS), tuple(step or STEPS), tuple(range(1, seeds + 1)), Timing(seconds=seconds))
    raise typer.Exit(run(REAL, real=True) if real else run(QUICK if quick else chosen))


def run(plan: Plan, *, real: bool = False) -> int:
    """Measures, prints and writes; the exit status."""
    began = time.monotonic()

    def say(what: str) -> None:
        typer.echo(f"overload [{time.monotonic() - began:4.0f} s] {what}")

    try:
        _check(plan)
        _prepare()
        results = http_course.run_real(plan, say, FOLDER) if real else http_course.run(plan, say, FOLDER)
    except BenchmarkError as problem:
        typer.echo(f"overload: {problem}", err=True)
        return 2
    reached = verdicts(results)
    typer.echo("\n" + http_report.tables(results, plan) + "\n")
    if plan.complete:
        DOCUMENT.write_text(http_report.document(_setting(plan), results, plan, reached))
        typer.echo(f"{DOCUMENT} is written.\n")
    for verdict in reached:
        typer.echo(verdict.line())
    return 0 if all(verdict.holds for verdict in reached) else 1


def _check(plan: Plan) -> None:
    strangers = set(plan.targets) - set(TARGETS)
    if strangers:
        raise BenchmarkError(f"there is no {', '.join(sorted(strangers))}; there are {', '.join(TARGETS)}")
    if not {GATEWAY_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise BenchmarkError("two cores are needed, one for the gateway and one for the load")
    missing = [command for command in ("taskset", "setpriv") if shutil.which(command) is None]
    if missing:
        raise BenchmarkError(f"{', '.join(missing)} is missing; scripts/debian-packages bench-gateway installs it")


def _prepare() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # all that is started inherits it
    os.sched_setaffinity(0, {LOAD_CORE})
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)


def _setting(plan: Plan) -> setting.Setting:
    versions = {name: peers.version_of(name) for name in plan.targets if name != DIRECT}
    versions[DAEMUN] = f"{versions[DAEMUN]} ({setting.commit()})"
    arguments = " ".join(sys.argv[1:])
    return setting.Setting(
        date=time.strftime("%Y-%m-%d"),
        machine=setting.machine(),
        command=f"python -m benchmarks.overload.http {arguments}".strip(),
        rounds=len(plan.seeds),
        seconds=plan.timing.seconds,
        versions=versions,
    )


if __name__ == "__main__":
    typer.run(main)
