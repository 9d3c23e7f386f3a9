"""`make bench-gateway`: starts what is compared, measures, prints tables and verdicts, writes docs/benchmarks.md."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.gateway import course, peers, report, setting
from benchmarks.gateway.aims import verdicts
from benchmarks.gateway.course import ENOUGH_ROUNDS, Part, Plan
from benchmarks.gateway.figures import Figures
from benchmarks.gateway.measure import Session
from benchmarks.gateway.peers import DAEMUN, INSTALLED
from benchmarks.gateway.processes import GATEWAY_CORE, LOAD_CORE, BenchmarkError

FOLDER = Path(".daemun/bench-gateway")
DOCUMENT = Path("docs/benchmarks.md")
QUICK_SECONDS = 2.0


def main(
    only: Annotated[list[Part] | None, typer.Option(help="Measure this part alone; repeat for more. Default: all.")] = None,
    others: Annotated[
        str, typer.Option("--peers", help="Whom to compare with, separated by commas; `none`: with the bare engine alone.")
    ] = ",".join(INSTALLED),
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds of calls, latency and streams.")] = ENOUGH_ROUNDS,
    seconds: Annotated[float, typer.Option(min=1, help="How long one run takes; latency runs take half of it.")] = 8.0,
    quick: Annotated[bool, typer.Option("--quick", help="See in two minutes that all works; the figures mean little.")] = False,
) -> None:
    """Measures daemun's gateway against vllm-router, smg and LiteLLM: each on one core, the load on another. Some 12 minutes.

    calls    requests a second at 64 connections, not streaming (wrk)
    latency  added p50 at one connection; added p99 at half the saturation rate
    streams  whole streams a second, 600 at once, and processor time a chunk
    open     10,000 streams open at once through one worker, short calls beside them
    memory   resident memory over 200,000 calls and 20,000 aborted streams

    Only ratios within one run mean anything, and only on a machine that does nothing else. The last lines say for
    each aim whether it HOLDS or falls SHORT; the exit status is 1 if any does. A complete run writes
    docs/benchmarks.md.
    Logs and raw figures are left in .daemun/bench-gateway.

    make bench-gateway ARGS="--only calls --only streams --peers vllm-router --rounds 1"
    """
    figures = Figures()
    began = time.monotonic()

    def say(what: str) -> None:
        typer.echo(f"bench [{time.monotonic() - began:4.0f} s] {what}")

    try:
        plan = Plan(tuple(only or Part), course.named_peers(others), 1 if quick else rounds, quick)
        _prepare()
        course.run(plan, Session(figures, say, QUICK_SECONDS if quick else seconds), FOLDER)
    except BenchmarkError as problem:
        typer.echo(f"bench: {problem}", err=True)
        raise typer.Exit(2) from problem
    raise typer.Exit(_conclude(plan, figures, seconds))


def _setting(plan: Plan, seconds: float) -> setting.Setting:
    versions = {name: peers.version_of(name) for name in plan.gateways}
    versions[DAEMUN] = f"{versions[DAEMUN]} ({setting.commit()})"
    arguments = " ".join(sys.argv[1:])
    return setting.Setting(
        date=time.strftime("%Y-%m-%d"),
        machine=setting.machine(),
        command="make bench-gateway" + (f' ARGS="{arguments}"' if arguments else ""),
        rounds=plan.rounds,
        seconds=seconds,
        versions=versions,
    )


def _prepare() -> None:
    missing = [command for command in ("wrk", "taskset", "setpriv") if shutil.which(command) is None]
    if missing:
        raise BenchmarkError(f"{', '.join(missing)} is missing; scripts/debian-packages bench-gateway installs it")
    if not {GATEWAY_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise BenchmarkError("two cores are needed, one for the gateway and one for the load")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # all that is started inherits it
    os.sched_setaffinity(0, {LOAD_CORE})
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)


def _conclude(plan: Plan, figures: Figures, seconds: float) -> int:
    """Prints and writes; the exit status."""
    (FOLDER / "figures.json").write_text(json.dumps(figures.as_table(), indent=1))
    judged = verdicts(figures)
    typer.echo("\n" + report.tables(figures, plan.gateways) + "\n")
    if plan.complete:
        DOCUMENT.write_text(report.document(_setting(plan, seconds), figures, judged))
        typer.echo(f"{DOCUMENT} is written.\n")
    for verdict in judged:
        typer.echo(verdict.line())
    return 0 if all(verdict.holds for verdict in judged) else 1


if __name__ == "__main__":
    typer.run(main)
