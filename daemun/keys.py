"""`daemun keys`: make, list and revoke API keys."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from daemun.context import open_store, when
from gateway.adapters import sqlite_tenants
from gateway.adapters.system_clock import SystemClock

app = typer.Typer(no_args_is_help=True, help="API keys: make, list and revoke them. A running gateway notices within 2 s.")


@app.command("create")
def create_key(
    context: typer.Context,
    tenant: Annotated[str, typer.Option(help="Who pays; made if new.")] = "default",
    project: Annotated[str, typer.Option(help="What the key is for.")] = "default",
    model: Annotated[list[str] | None, typer.Option(help="A model that the key may use; repeat for more. Default: all.")] = None,
) -> None:
    """Make a key and print it, once: only its hash is kept."""
    with open_store(context.obj.settings()) as store:
        secret, info = sqlite_tenants.create_key(store, SystemClock(), tenant=tenant, project=project, models=model)
    typer.echo(f"id   {info.id}\nkey  {secret}\nKeep the key now: it is not stored and cannot be shown again.")


@app.command("list")
def list_keys(context: typer.Context) -> None:
    """All keys, without their secrets."""
    table = Table("id", "tenant", "project", "models", "created", "revoked", box=None, pad_edge=False)
    with open_store(context.obj.settings()) as store:
        for info in sqlite_tenants.list_keys(store):
            models = "all" if info.models is None else ", ".join(info.models)
            revoked = "-" if info.revoked_at is None else when(info.revoked_at)
            table.add_row(info.id, info.tenant, info.project, models, when(info.created_at), revoked)
    Console().print(table)


@app.command("revoke")
def revoke_key(context: typer.Context, key_id: Annotated[str, typer.Argument(help="The key's id, as listed.")]) -> None:
    """Revoke a key. Every gateway refuses it within 2 s; running calls go on."""
    with open_store(context.obj.settings()) as store:
        sqlite_tenants.revoke_key(store, SystemClock(), key_id)
    typer.echo(f"{key_id} is revoked.")
