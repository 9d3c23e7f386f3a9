"""The command `daemun`: reads the settings, calls the part that does the work, turns problems into one sentence."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from daemun import doctor as machine
from daemun import keys, limits, models, rollouts, simulate, tenants, usage, welcome
from daemun.context import Context, administer
from daemun.ledger import with_catalogue_energy
from daemun.problem import Problem
from daemun.progress import Progress
from daemun.settings import Settings, SettingsError
from daemun.up import Supervisor
from daemun.workers import Workers, listen
from gateway.adapters.schema import StoreUnusable
from gateway.call_error import CallError
from serving import serve_process
from serving.settings import ServingSettings

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
app.add_typer(tenants.app, name="tenants")
app.add_typer(keys.app, name="keys")
app.add_typer(limits.app, name="limits")
app.add_typer(usage.app, name="usage")
app.add_typer(models.app, name="models")
app.add_typer(rollouts.app, name="rollouts")


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
    _require(settings, gateway=True, serving=True)
    base_url = welcome.base_url(settings)
    administer(settings, lambda admin: admin.tenants())  # a store that cannot be used is said before anything starts

    with Progress() as progress:

        def when_ready() -> list[str] | None:
            secret = administer(settings, welcome.new_key)
            progress.stop()
            if context.args:
                welcome.set_environment(base_url, secret)
            else:
                welcome.show(progress.console, base_url, secret, settings.serving.models[0], progress.elapsed_s)
            return context.args or None

        raise typer.Exit(Supervisor(settings, context.obj.options(), progress.say).run(when_ready))


@app.command()
def gateway(
    context: typer.Context,
    listener: Annotated[int | None, typer.Option(hidden=True, help="The inherited socket of one of several workers.")] = None,
) -> None:
    """Start the gateway alone, in the foreground. The replicas come from `gateway.fleets` in the settings.

    With `gateway.workers` it is that many processes, which share a port, the limits (in Redis) and the stores.
    """
    settings = context.obj.settings()
    logging.basicConfig(level=settings.gateway.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    if listener is None:
        _require(settings, gateway=True)
        if settings.gateway.workers > 1:
            with listen(settings.gateway) as shared:
                Workers(settings.gateway, context.obj.options(), shared).run()
            return
    from gateway.server import run  # here and not above: `daemun --help` should not wait for a web framework

    inherited = None if listener is None else socket.socket(fileno=listener)
    run(with_catalogue_energy(settings.gateway, settings.serving.catalog_dir), settings.state_dir, inherited)


@app.command()
def serve(context: typer.Context) -> None:
    """Start Ray Serve with the models of `serving.models`, in the foreground, without a gateway."""
    settings = context.obj.settings()
    _require(settings, serving=True)
    from serving.host import run

    def reread() -> ServingSettings | str:
        try:
            now: Settings = context.obj.settings()
            _require_models(now)
        except (Problem, SettingsError) as problem:
            return str(problem)
        return now.serving_here()

    raise typer.Exit(run(settings.serving_here(), settings.state_dir, typer.echo, reread))


@app.command()
def reload(context: typer.Context) -> None:
    """Let the running `daemun serve` (or `up`) go over to daemun.yaml and the catalogue as they are now, with no call failing.

    Only what has changed is touched: replicas of the new version start, and old ones end as those are ready. How it goes is said
    where `daemun serve` runs. Variables are those that it was started with.
    """
    settings = context.obj.settings()
    _require_models(settings)
    process = serve_process.find(settings.state_dir)
    if process is None:
        raise Problem(
            f"No daemun serve runs with {settings.state_dir}. Start one with daemun up, or name its settings with --config."
        )
    process.send_signal(signal.SIGUSR1)
    typer.echo(f"daemun serve (process {process.pid}) has been asked; its output says how the reload goes.")


@app.command()
def autoscaler(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any that is free.")] = 9464,
) -> None:
    """Tell HPA and KEDA how many replicas each model should have, where Ray Serve does not scale them itself.

    It asks the gateway once a second and serves the policy's number: `/metrics` for Prometheus (`daemun_desired_replicas`), and
    `/desired/MODEL` for KEDA's metrics-api trigger. Without a signal there is no figure, so that the fleet stays as it is.
    """
    from daemun.autoscaler import run

    run(context.obj.settings(), host, port, typer.echo)


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


def _require_models(settings: Settings) -> None:
    """The first thing that is wrong with the models, as one sentence."""
    for finding in machine.failures(machine.judge_models(machine.look(settings), settings)):
        raise Problem(finding.sentence())


def _require(settings: Settings, *, gateway: bool = False, serving: bool = False) -> None:
    """Before anything is started: the first thing that would make it fail, as one sentence."""
    findings = machine.judge(machine.look(settings), settings, gateway=gateway, serving=serving)
    for finding in machine.failures(findings):
        raise Problem(finding.sentence())


app.command()(simulate.simulate)


def main(arguments: list[str] | None = None) -> None:
    """The entry point. Expected problems end here as one sentence on standard error."""
    try:
        app(arguments)
    except (Problem, SettingsError, StoreUnusable, CallError) as problem:
        Console(stderr=True, highlight=False).print(f"daemun: {problem}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)
