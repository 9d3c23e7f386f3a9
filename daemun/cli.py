"""The command `daemun`: reads the settings, calls the part that does the work, turns problems into one sentence."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from daemun import doctor as machine
from daemun import welcome
from daemun.problem import Problem
from daemun.progress import Progress
from daemun.settings import Settings, SettingsError, load
from daemun.up import Supervisor
from gateway.adapters import sqlite
from gateway.adapters.system_clock import SystemClock
from gateway.entry import Entry

if TYPE_CHECKING:
    import sqlite3

DAY_S = 86_400.0

app = typer.Typer(
    name="daemun",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help=(
        "Serves open-weight Korean foundation models to OpenAI clients.\n\n"
        "Start with **daemun up**: it brings up the models and the gateway, and prints a key and a line to try.\n\n"
        "Settings come from daemun.yaml and DAEMUN_* variables; **daemun doctor** says whether this machine is fit for them."
    ),
)
keys_app = typer.Typer(no_args_is_help=True, help="API keys: make, list and revoke them. A running gateway notices within 2 s.")
app.add_typer(keys_app, name="keys")


@dataclass(slots=True)
class Context:
    """What every command gets: where the settings are."""

    config: Path | None = None

    def settings(self) -> Settings:
        return load(self.config)

    def options(self) -> list[str]:
        """The command-line options that give a child the same settings."""
        return [] if self.config is None else ["--config", str(self.config)]


@app.callback()
def _options(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(help="The settings file. Default: $DAEMUN_CONFIG, else daemun.yaml here, else built-in defaults."),
    ] = None,
) -> None:
    context.obj = Context(config)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def up(context: typer.Context) -> None:
    """Start everything: Ray Serve with the models, and the gateway; stay until Ctrl-C, then end all of it.

    With a command behind `--`, run that once all is ready, with OPENAI_BASE_URL and OPENAI_API_KEY set, and end with it:

    `daemun up -- python -m serving.demo.evaluate`
    """
    settings = context.obj.settings()
    progress = Progress()
    _require(settings, gateway=True, serving=True)
    with _store(settings) as store:
        base_url = welcome.base_url(settings)

        def when_ready() -> list[str] | None:
            secret = welcome.new_key(store, SystemClock())
            progress.stop()
            if context.args:
                welcome.set_environment(base_url, secret)
            else:
                welcome.show(progress.console, base_url, secret, settings.serving.models[0], progress.elapsed_s)
            return context.args or None

        raise typer.Exit(Supervisor(settings, context.obj.options(), progress.say).run(when_ready))


@app.command()
def gateway(context: typer.Context) -> None:
    """Start the gateway alone, in the foreground. The replicas come from `gateway.fleets` in the settings."""
    settings = context.obj.settings()
    _require(settings, gateway=True)
    from gateway.server import run  # here and not above: `daemun --help` should not wait for a web framework

    logging.basicConfig(level=settings.gateway.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    run(settings.gateway, settings.state_dir)


@app.command()
def serve(context: typer.Context) -> None:
    """Start Ray Serve with the models of `serving.models`, in the foreground, without a gateway."""
    settings = context.obj.settings()
    _require(settings, serving=True)
    from serving.host import run

    raise typer.Exit(run(settings.serving, settings.state_dir, typer.echo))


@app.command()
def doctor(context: typer.Context) -> None:
    """Look at this machine and say whether it is fit for the settings, and what to do where it is not."""
    settings = context.obj.settings()
    findings = machine.judge(machine.look(settings), settings)
    console = Console(highlight=False, soft_wrap=True)
    styles = {machine.Grade.OK: "green", machine.Grade.WARNING: "yellow", machine.Grade.FAILURE: "red"}
    for finding in findings:
        console.print(f"{finding.grade.value:<8} {finding.subject}: {finding.detail}", style=styles[finding.grade], markup=False)
        if finding.remedy:
            console.print(f"         → {finding.remedy}", markup=False)
    raise typer.Exit(1 if machine.failures(findings) else 0)


@keys_app.command("create")
def create_key(
    context: typer.Context,
    tenant: Annotated[str, typer.Option(help="Who pays; made if new.")] = "default",
    project: Annotated[str, typer.Option(help="What the key is for.")] = "default",
    model: Annotated[list[str] | None, typer.Option(help="A model that the key may use; repeat for more. Default: all.")] = None,
) -> None:
    """Make a key and print it, once: only its hash is kept."""
    with _store(context.obj.settings()) as store:
        secret, info = sqlite.create_key(store, SystemClock(), tenant=tenant, project=project, models=model)
    typer.echo(f"id   {info.id}\nkey  {secret}\nKeep the key now: it is not stored and cannot be shown again.")


@keys_app.command("list")
def list_keys(context: typer.Context) -> None:
    """All keys, without their secrets."""
    table = Table("id", "tenant", "project", "models", "created", "revoked", box=None, pad_edge=False)
    with _store(context.obj.settings()) as store:
        for info in sqlite.list_keys(store):
            models = "all" if info.models is None else ", ".join(info.models)
            revoked = "-" if info.revoked_at is None else _when(info.revoked_at)
            table.add_row(info.id, info.tenant, info.project, models, _when(info.created_at), revoked)
    Console().print(table)


@keys_app.command("revoke")
def revoke_key(context: typer.Context, key_id: Annotated[str, typer.Argument(help="The key's id, as listed.")]) -> None:
    """Revoke a key. Every gateway refuses it within 2 s; running calls go on."""
    with _store(context.obj.settings()) as store:
        sqlite.revoke_key(store, SystemClock(), key_id)
    typer.echo(f"{key_id} is revoked.")


@app.command()
def usage(
    context: typer.Context,
    days: Annotated[float, typer.Option(min=0, help="How far back to count.")] = 30.0,
    calls: Annotated[int, typer.Option(min=0, help="Show this many of the last calls, one a line, instead of sums.")] = 0,
) -> None:
    """What was used, from the ledger: the engine's own token counts, summed by tenant, key and model."""
    with _store(context.obj.settings()) as store:
        if calls:
            table = _table_of_calls(sqlite.read_entries(store, last=calls))
        else:
            table = _table_of_sums(sqlite.sum_usage(store, since=time.time() - days * DAY_S))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _table_of_calls(entries: list[Entry]) -> Table:
    table = Table(
        "when", "id", "model", "stream", "status", "outcome", "prompt", "completion", "queue", "first byte", "all", box=None
    )
    for entry in entries:
        table.add_row(
            _when(entry.started_at),
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


def _table_of_sums(rows: list[sqlite.UsageRow]) -> Table:
    table = Table("tenant", "project", "key", "model", "calls", "completed", "aborted", "prompt", "completion", box=None)
    for row in rows:
        counts = (row.calls, row.completed, row.aborted, row.prompt_tokens, row.completion_tokens)
        table.add_row(row.tenant, row.project, row.key_id, row.model, *(f"{count:,}" for count in counts))
    return table


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _seconds(duration_s: float | None) -> str:
    return "-" if duration_s is None else f"{duration_s:.3f} s"


def _require(settings: Settings, *, gateway: bool = False, serving: bool = False) -> None:
    """Before anything is started: the first thing that would make it fail, as one sentence."""
    findings = machine.judge(machine.look(settings), settings, gateway=gateway, serving=serving)
    for finding in machine.failures(findings):
        raise Problem(finding.sentence())


@contextmanager
def _store(settings: Settings) -> Iterator[sqlite3.Connection]:
    with closing(sqlite.connect(sqlite.store_path(settings.state_dir))) as connection:
        yield connection


def main(arguments: list[str] | None = None) -> None:
    """The entry point. Expected problems end here as one sentence on standard error."""
    try:
        app(arguments)
    except (Problem, SettingsError, sqlite.StoreUnusable, sqlite.UnknownKey) as problem:
        Console(stderr=True, highlight=False).print(f"daemun: {problem}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)
