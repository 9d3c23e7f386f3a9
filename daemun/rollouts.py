"""`daemun rollouts`: which candidates are on trial, and how each does beside the model that it may take the place of."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from daemun.comparison import is_shadow, sample, was_returned
from daemun.context import print_table
from daemun.ledger import moment, open_ledger
from daemun.problem import Problem
from daemun.rollout_shown import Report, Way, lines_of, table_of, to_json
from daemun.settings import Settings
from gateway.ledger_query import LedgerQuery, LedgerStore
from gateway.policy.cost import Rates

DAY_S = 86_400.0
_MOST_CALLS = 100_000  # of each version

app = typer.Typer(
    no_args_is_help=True,
    help=(
        "Candidates on trial for a model (`gateway.rollouts` in the settings).\n\n"
        "`daemun rollouts list`  which ones, with what shares\n\n"
        "`daemun rollouts report`  how each does beside its model, and what can be said of that · 후보 모델 비교 보고서"
    ),
)
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command("list")
def list_rollouts(context: typer.Context, as_json: AsJson = False) -> None:
    """The rollouts of the settings."""
    rollouts = context.obj.settings().gateway.rollouts
    if as_json:
        typer.echo(json.dumps([one.model_dump(mode="json") for one in rollouts], ensure_ascii=False, indent=2))
        return
    table = Table("model", "candidate", "canary", "shadow", "sticky", box=None, pad_edge=False)
    for one in rollouts:
        table.add_row(one.model, one.candidate, f"{one.canary:.1%}", f"{one.shadow:.1%}", one.sticky)
    print_table(table)


@app.command()
def report(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(help="The model that clients ask for; all with a rollout if not given.")] = None,
    candidate: Annotated[str | None, typer.Option(help="Of a rollout that the settings do not have any more.")] = None,
    days: Annotated[float, typer.Option(min=0, help="How far back to look, where --since is not given.")] = 7.0,
    since: Annotated[str | None, typer.Option(help="From then on: 2026-11-22 or 2026-11-22T09:00, Asia/Seoul.")] = None,
    until: Annotated[str | None, typer.Option(help="Up to then, without it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Model and candidate side by side, from the ledger, with a judgement · 기존 모델과 후보 모델 비교.

    A call is in the ledger about a second after it is over. Compared are calls of the same time that asked for the model, so
    shares that were changed within it are best left out with --since.
    """
    settings = context.obj.settings()
    now = time.time()
    begin, end = now - days * DAY_S if since is None else moment(since), now if until is None else moment(until)
    pairs = _pairs(settings, model, candidate)
    with open_ledger(settings) as store:
        rates = settings.gateway.rates()
        reports = [read(store, rates, LedgerQuery(since=begin, until=end, asked=one), other) for one, other in pairs]
    if as_json:
        typer.echo(json.dumps([to_json(one) for one in reports], ensure_ascii=False, indent=2))
        return
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False, soft_wrap=True)
    for one in reports:
        console.print(table_of(one))
        for line in lines_of(one):
            console.print(line, markup=False)
        console.print()


def read(store: LedgerStore, rates: Rates, query: LedgerQuery, candidate: str) -> Report:
    """What the ledger has of that time's calls that asked for `query.asked`."""
    model = query.asked or ""
    own, others = (
        store.entries(LedgerQuery(since=query.since, until=query.until, asked=model, model=name), _MOST_CALLS)
        for name in (model, candidate)
    )
    shadows = [entry for entry in others if is_shadow(entry)]
    canaries = [entry for entry in others if not is_shadow(entry)]
    price = rates.price(candidate)
    ways = (
        Way("canary", sample(canaries, price), sum(was_returned(entry) for entry in canaries)),
        Way("shadow", sample(shadows, price)),
    )
    return Report(
        model,
        candidate,
        query.since,
        query.until,
        sample(own, rates.price(model)),
        tuple(way for way in ways if way.sample.worked or way.sample.rejected),
        is_cut=_MOST_CALLS in (len(own), len(others)),
    )


def _pairs(settings: Settings, model: str | None, candidate: str | None) -> list[tuple[str, str]]:
    """Raises Problem."""
    known = {one.model: one.candidate for one in settings.gateway.rollouts}
    if model is None:
        if candidate is not None:
            raise Problem("--candidate needs the model that it was tried for: daemun rollouts report MODEL --candidate NAME.")
        if not known:
            raise Problem("There are no rollouts in the settings. Add one to gateway.rollouts, or name a model and --candidate.")
        return list(known.items())
    found = candidate or known.get(model)
    if found is None:
        models = f" (those that have one: {', '.join(known)})" if known else ""
        raise Problem(f"{model} has no rollout in the settings{models}. Name the candidate of a past one with --candidate.")
    return [(model, found)]
