"""`daemun simulate`: a fleet in virtual time, as a table, JSON and a page. All that is simulated is in `serving.simulator`."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from daemun.problem import Problem

if TYPE_CHECKING:  # read when it is needed: no other command should wait for the simulator
    from serving.simulator.result import Result

_TELL_EVERY_S = 2.0


def simulate(
    scenario: Annotated[Path, typer.Argument(help="A YAML file, or the name of a scenario that comes with daemun.")],
    json: Annotated[Path | None, typer.Option(help="Write all figures and the course of time to this file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots to this file.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Another chance; the scenario's own if not given.")] = None,
) -> None:
    """Let a fleet serve a day's calls in virtual time, and say what came of it.

    The gateway's admission, limits and routing, the allocation of GPUs and the autoscaling are the real ones; engines are models
    of vLLM's scheduler with figures of their own. The same scenario and seed give the same result.

    Begin with one that comes with daemun: `daemun simulate launch-day --html launch.html`. Others are `day-curve`, `spot-losses`
    and `scale-from-zero`; copy one from serving/simulator/scenarios and change it. docs/simulator.md explains every key.
    """
    from serving.simulator.report import document, page, summary, terminal

    for file in (json, html):
        _must_be_writable(file)
    result = _run(scenario, seed)
    figures = summary.summary(result)
    console = Console(highlight=False)
    for table in terminal.tables(result, figures):
        console.print(table)
    _write(json, lambda: document.document(result, figures))
    _write(html, lambda: page.page(result, figures))


def _run(path: Path, seed: int | None) -> Result:
    """With a line on standard error now and then. Raises Problem."""
    from serving.simulator.run import Run
    from serving.simulator.scenario import ScenarioError, read_scenario
    from serving.simulator.traces import UnreadableTrace

    said = Console(stderr=True, highlight=False)
    began = told = time.monotonic()
    try:
        scenario = read_scenario(path)
        run = Run(scenario, seed)
    except (ScenarioError, UnreadableTrace) as problem:
        raise Problem(str(problem)) from problem

    def tell(now: float, result: Result) -> None:
        nonlocal told
        if time.monotonic() - told > _TELL_EVERY_S:
            told = time.monotonic()
            passed = told - began
            line = f"{passed:5.0f} s  {now / scenario.duration_s:4.0%}  {len(result.calls):,} calls"
            said.print(f"{line}, {now / passed:,.0f} times real time", style="dim")

    said.print(f"{scenario.name}, seed {run.seed}: {scenario.about}", markup=False)
    with _seldom_collected():
        result = run.run(tell)
    result.took_s = time.monotonic() - began
    said.print(
        f"{scenario.duration_s:,.0f} s in {result.took_s:.1f} s, {scenario.duration_s / result.took_s:,.0f} times real time; "
        f"{len(result.calls):,} calls, {result.events:,} events"
    )
    return result


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """What a run makes is almost free of cycles, so looking for them would be a tenth of its time."""
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(200_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def _must_be_writable(file: Path | None) -> None:
    """Before anything is simulated."""
    if file is not None and not file.absolute().parent.is_dir():
        raise Problem(f"{file} cannot be written: there is no folder {file.absolute().parent}. Make it, or name another file.")


def _write(file: Path | None, text: Callable[[], str]) -> None:
    if file is None:
        return
    try:
        file.write_text(text(), encoding="utf-8")
    except OSError as problem:
        raise Problem(f"{file} cannot be written: {problem.strerror}. Name another file.") from problem
