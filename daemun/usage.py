"""`daemun usage`: what was used, from the ledger, as a table or as a file."""

from __future__ import annotations

import sys
import time
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from daemun import export, statement, verify
from daemun.export import Record, of_entry, of_sum
from daemun.ledger import in_seoul, krw, moment, open_ledger
from daemun.problem import Problem
from gateway.entry import Entry
from gateway.ledger_query import Group, LedgerQuery, UsageSum

DAY_S = 86_400.0
_USUAL_GROUPS = (Group.TENANT, Group.PROJECT, Group.KEY, Group.MODEL)
_EXPORTED_CALLS = 1_000_000

app = typer.Typer(invoke_without_command=True, help="What was used, from the ledger.")
app.command("statement")(statement.statement)
app.command("verify")(verify.verify)


class Format(Enum):
    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


Wanted = Annotated[str | None, typer.Option(help="Only calls of this one.")]


@app.callback()
def usage(
    context: typer.Context,
    days: Annotated[float, typer.Option(min=0, help="How far back to count, where --since is not given.")] = 30.0,
    since: Annotated[str | None, typer.Option(help="From then on: 2026-11-22 or 2026-11-22T09:00, Asia/Seoul.")] = None,
    until: Annotated[str | None, typer.Option(help="Up to then, without it.")] = None,
    tenant: Wanted = None,
    project: Wanted = None,
    key: Wanted = None,
    model: Wanted = None,
    tier: Wanted = None,
    outcome: Wanted = None,
    group_by: Annotated[list[Group] | None, typer.Option(help="What sums are made by; may be given several times.")] = None,
    calls: Annotated[int, typer.Option(min=0, help="Show this many of the last calls, one a line, instead of sums.")] = 0,
    format: Annotated[Format, typer.Option(help="How to show it.")] = Format.TABLE,
    output: Annotated[Path | None, typer.Option(help="The file to write; parquet needs one.")] = None,
) -> None:
    """What was used, from the ledger: the engine's own token counts, and what they cost (net).

    An entry is in the ledger about a second after its call. Energy is an estimate, and so are counts where the engine tells none.
    """
    if context.invoked_subcommand is not None:
        return
    query = LedgerQuery(
        since=time.time() - days * DAY_S if since is None else moment(since),
        until=LedgerQuery().until if until is None else moment(until),
        tenant=tenant,
        project=project,
        key_id=key,
        model=model,
        tier=tier,
        outcome=outcome,
    )
    groups = tuple(group_by or _USUAL_GROUPS)
    with open_ledger(context.obj.settings()) as store:
        if calls:
            entries = store.entries(query, calls)
            _show([of_entry(entry) for entry in entries], _table_of_calls(entries), format, output)
        else:
            sums = store.sums(query, groups)
            _show([of_sum(one, groups) for one in sums], _table_of_sums(sums, groups), format, output)


def _show(records: list[Record], table: Table, format: Format, output: Path | None) -> None:
    if format is Format.PARQUET:
        if output is None:
            raise Problem("Parquet is no text: name a file with --output.")
        export.write_parquet(records, output)
        return
    try:
        file = sys.stdout if output is None else output.open("w", encoding="utf-8", newline="")
    except OSError as problem:
        raise Problem(f"{output} cannot be written ({problem}).") from problem
    try:
        if format is Format.CSV:
            export.write_csv(records, file)
        elif format is Format.JSON:
            export.write_json(records, file)
        else:
            Console(width=None if file.isatty() else 200, file=file).print(table)
    finally:
        if output is not None:
            file.close()


def _table_of_calls(entries: list[Entry]) -> Table:
    table = Table(
        *("when", "id", "tenant", "model", "stream", "status", "outcome", "prompt", "completion", "KRW", "queue", "first byte"),
        "all",
        box=None,
    )
    for entry in entries:
        table.add_row(
            f"{in_seoul(entry.started_at):%Y-%m-%d %H:%M:%S}",
            entry.id[:12],
            entry.tenant,
            entry.model,
            "yes" if entry.stream else "no",
            str(entry.status),
            entry.error_code or entry.outcome,
            f"{'~' * entry.estimated}{entry.prompt_tokens}",
            f"{'~' * entry.estimated}{entry.completion_tokens}",
            f"{krw(entry.cost_ukrw):.2f}",
            _seconds(entry.queue_s),
            _seconds(entry.first_byte_s),
            _seconds(entry.duration_s),
        )
    return table


def _table_of_sums(sums: list[UsageSum], groups: tuple[Group, ...]) -> Table:
    table = Table(
        *(group.value for group in groups),
        *(
            "calls",
            "completed",
            "aborted",
            "rejected",
            "failed",
            "prompt",
            "cached",
            "completion",
            "reasoning",
            "KRW",
            "Wh (est.)",
        ),
        box=None,
    )
    for one in sums:
        counts = (one.calls, one.completed, one.aborted, one.rejected, one.failed)
        tokens = (one.prompt_tokens, one.cached_tokens, one.completion_tokens, one.reasoning_tokens)
        numbers = (f"{count:,}" for count in (*counts, *tokens))
        table.add_row(*one.group, *numbers, f"{krw(one.cost_ukrw):,.2f}", f"{one.energy_wh:,.3f}")
    return table


def _seconds(duration_s: float | None) -> str:
    return "-" if duration_s is None else f"{duration_s:.3f} s"
