"""A run as tables for the terminal. Pure."""

from __future__ import annotations

import math

from rich.box import SIMPLE_HEAD
from rich.table import Table

from serving.simulator.report.summary import CallFigures, Summary
from serving.simulator.report.wording import number, seconds, share
from serving.simulator.result import Result

_TOTAL = "all"
_NAME = 12  # columns for a name at least


def tables(result: Result, figures: Summary) -> list[Table]:
    """What became of the calls and how long they waited, by model and tier; what the fleet was; how fast the simulation ran."""
    return [_calls(figures), _waits(figures), _fleet(figures), _run(result, figures)]


def _calls(figures: Summary) -> Table:
    title = f"{figures.scenario}, seed {figures.seed}: what became of the calls"
    table = _table(title, ("", "came", "served", "in time", "turned away", "failed", "under way"))
    for name, calls in _rows(figures):
        table.add_row(
            name,
            number(calls.came),
            share(calls.served, calls.came),
            share(calls.in_time, calls.came),
            number(calls.turned_away),
            number(calls.failed),
            number(calls.under_way),
        )
    return table


def _waits(figures: Summary) -> Table:
    table = _table(
        "Time to first token", ("", "first token p50", "first token p99", "whole wait p50", "whole wait p99", "minutes outside")
    )
    for name, calls in _rows(figures):
        times = (calls.first_token_s[0], calls.first_token_s[2], calls.wait_s[0], calls.wait_s[2])
        table.add_row(name, *map(seconds, times), f"{calls.outside} of {calls.minutes}")
    return table


def _rows(figures: Summary) -> list[tuple[str, CallFigures]]:
    rows = [(model.model, model.calls) for model in figures.models]
    if len(figures.models) > 1:
        rows.append((_TOTAL, figures.total.calls))
    return [*rows, *((f"tier {tier}", calls) for tier, calls in figures.tiers if len(figures.tiers) > 1)]


def _fleet(figures: Summary) -> Table:
    columns = ("", "GPU-hours", "tokens each", "ready, mean", "longest queue", "refusals", "lost", "broke")
    table = _table("Replicas and GPUs", columns)
    whole = [(_TOTAL, figures.total)] if len(figures.models) > 1 else []
    for name, model in [*((model.model, model) for model in figures.models), *whole]:
        fleet = model.fleet
        tokens_each = model.calls.tokens / fleet.gpu_hours if fleet.gpu_hours > 0 else math.nan
        counts = (fleet.waiting_most, model.calls.refusals, fleet.lost, fleet.broke)
        table.add_row(name, *map(number, (fleet.gpu_hours, tokens_each, fleet.ready_mean, *counts)))
    return table


def _run(result: Result, figures: Summary) -> Table:
    table = _table("Simulation", ("virtual time", "took", "times real time", "events", "fingerprint"))
    times = result.duration_s / result.took_s if result.took_s > 0 else math.nan
    took = seconds(result.took_s)
    table.add_row(seconds(figures.duration_s), took, number(times), number(result.events), result.fingerprint()[:12])
    return table


def _table(title: str, columns: tuple[str, ...]) -> Table:
    """Narrow enough for 80 columns: words of the header stand on top of each other, long names are broken."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for column in columns:
        words = column.replace(" ", "\n")
        table.add_column(words, justify="right" if words else "left", overflow="fold", min_width=0 if words else _NAME)
    return table
