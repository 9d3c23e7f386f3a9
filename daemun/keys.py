"""`daemun keys`: make, list, change and revoke API keys."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer
from rich.table import Table

from daemun.context import administer, print_table, when
from daemun.tenants import Models, TierChoice, models_shown, models_wished
from gateway.policy.tenancy import AlreadyThere, Key
from gateway.tenant_admin import TenantAdmin

app = typer.Typer(
    no_args_is_help=True,
    help=(
        "API keys: make, list, change and revoke them. A running gateway notices within 2 s.\n\n"
        "`daemun keys create --tenant school --project homework`  a key; tenant and project are made if they are new\n\n"
        "`daemun keys create --tenant school --project quiz --tier free --model daemun-demo`  of a lower tier, for one model\n\n"
        "`daemun keys revoke key_1f2e3d4c5b6a`  for good"
    ),
)


@app.command("create")
def create_key(
    context: typer.Context,
    tenant: Annotated[str, typer.Option(help="Who pays; made if new.")] = "default",
    project: Annotated[str, typer.Option(help="What the key is for; made if new.")] = "default",
    tier: Annotated[TierChoice | None, typer.Option(help="No higher than the tenant's. Default: that.")] = None,
    model: Models = None,
) -> None:
    """Make a key and print it, once: only its hash is kept."""

    async def work(admin: TenantAdmin) -> tuple[str, Key]:
        await make_if_new(admin, tenant, project)
        return await admin.create_key(tenant, project, {**models_wished(model), "tier": tier and tier.value})

    secret, key = administer(context.obj.settings(), work)
    typer.echo(f"id   {key.id}\nkey  {secret}\nKeep the key now: it is not stored and cannot be shown again.")


@app.command("list")
def list_keys(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Option(help="Only this one's.")] = None,
    project: Annotated[str | None, typer.Option(help="Only this one's.")] = None,
) -> None:
    """All keys, without their secrets."""
    table = Table("id", "tenant", "project", "tier", "models", "created", "revoked", box=None, pad_edge=False)
    for key in administer(context.obj.settings(), lambda admin: admin.keys(tenant, project)):
        tier = "its tenant's" if key.tier is None else key.tier.value
        revoked = "-" if key.revoked_at is None else when(key.revoked_at)
        table.add_row(key.id, key.tenant, key.project, tier, models_shown(key.models), when(key.created_at), revoked)
    print_table(table)


@app.command("change")
def change_key(
    context: typer.Context,
    key_id: Annotated[str, typer.Argument(help="The key's id, as listed.")],
    tier: Annotated[TierChoice | None, typer.Option(help="No higher than the tenant's.")] = None,
    model: Models = None,
) -> None:
    """Change a key; what is not named stays. Its limits are set by `daemun limits`."""
    values: dict[str, object] = models_wished(model)
    if tier is not None:
        values["tier"] = tier.value
    administer(context.obj.settings(), lambda admin: admin.change_key(key_id, values))
    typer.echo(f"{key_id} is changed.")


@app.command("revoke")
def revoke_key(context: typer.Context, key_id: Annotated[str, typer.Argument(help="The key's id, as listed.")]) -> None:
    """Revoke a key, for good. Every gateway refuses it within 2 s; running calls go on."""
    administer(context.obj.settings(), lambda admin: admin.revoke_key(key_id))
    typer.echo(f"{key_id} is revoked.")


async def make_if_new(admin: TenantAdmin, tenant: str, project: str) -> None:
    with suppress(AlreadyThere):
        await admin.create_tenant(tenant, {})
    with suppress(AlreadyThere):
        await admin.create_project(tenant, project, {})
