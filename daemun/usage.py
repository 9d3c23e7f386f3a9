"""`daemun usage`: what was used, from the ledger."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from daemun.context import open_store, when
from gateway.adapters import sqlite_ledger
from gateway.entry import Entry

DAY_S = 86_400.0


def usage(
    context: typer.Context,
    days: Annotated[float, typer.Option(min=0, help="How far back to count.")] = 30.0,
    calls: Annotated[int, typer.Option(min=0, help="Show this many of the last calls, one a line, instead of sums.")] = 0,
) -> None:
    """What was used, from the ledger: the engine's own token counts, summed by tenant, key and model."""
    with open_store(context.obj.settings()) as store:
        if calls:
            table = _table_of_calls(sqlite_ledger.read_entries(store, last=calls))
        else:
            table = _table_of_sums(sqlite_ledger.sum_usage(store, since=time.time() - days * DAY_S))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _table_of_calls(entries: list[Entry]) -> Table:
    table = Table(
        "when", "id", "model", "stream", "status", "outcome", "prompt", "completion", "queue", "first byte", "all", box=None
    )
    for entry in entries:
        table.add_row(
            when(entry.started_at),
            entry.id[:12],
            entry.model,
            "yes" if entry.stream else "no",
            str(entry.status),
            entry.error_code or entry.outcome,
            str(entry.prompt_tokens),
            str(entry.completion_tokens),
            _seconds(entry.queue_s),
            _seconds(entry.first_byte_s),
            _seconds(entry.duration_s),
        )
    return table


def _table_of_sums(rows: list[sqlite_ledger.UsageRow]) -> Table:
    table = Table("tenant", "project", "key", "model", "calls", "completed", "aborted", "prompt", "completion", box=None)
    for row in rows:
        counts = (row.calls, row.completed, row.aborted, row.prompt_tokens, row.completion_tokens)
        table.add_row(row.tenant, row.project, row.key_id, row.model, *(f"{count:,}" for count in counts))
    return table


def _seconds(duration_s: float | None) -> str:
    return "-" if duration_s is None else f"{duration_s:.3f} s"
