"""`daemun tenants`: make, show, change and delete tenants and their projects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Annotated

import typer
from rich.table import Table

from daemun.context import administer, limits_shown, print_table, when
from gateway.policy.limits import Tier
from gateway.policy.tenancy import Key, Project, Tenant, Values
from gateway.tenant_admin import TenantAdmin

ALL = "all"  # instead of a list of models

app = typer.Typer(
    no_args_is_help=True,
    help=(
        "Tenants, who pay, and their projects. A running gateway notices changes within 2 s.\n\n"
        "`daemun tenants create school --tier free --model daemun-demo`  one that may use one model\n\n"
        "`daemun tenants change school --tier paid --model all`  what is not named stays\n\n"
        "`daemun tenants disable school`  all its keys are refused, until `daemun tenants enable school`\n\n"
        "`daemun tenants project create school homework`  a project of it"
    ),
)
projects = typer.Typer(
    no_args_is_help=True,
    help=(
        "A tenant's projects.\n\n"
        "`daemun tenants project create school homework --model daemun-demo`\n\n"
        "`daemun tenants project disable school homework`  its keys are refused"
    ),
)
app.add_typer(projects, name="project")

TierChoice = Enum("TierChoice", {tier.name: tier.value for tier in Tier}, type=str)  # type: ignore[misc]  # what Typer wants
Name = Annotated[str, typer.Argument(help="The tenant's name.")]
ProjectName = Annotated[str, typer.Argument(help="The project's name.")]
Models = Annotated[
    list[str] | None, typer.Option(help=f"A model that may be used; repeat for more. '{ALL}' for every one.", show_default=False)
]
Fallbacks = Annotated[
    list[str] | None,
    typer.Option("--fallback", help="A smaller model that calls may go to when the one they ask for is full; repeat for more."),
]
TierOption = Annotated[TierChoice | None, typer.Option(help="Its service class; a new tenant's is paid.", show_default=False)]
Weight = Annotated[
    float | None, typer.Option(help="Its share of its tier, relative to others'; a new tenant's is 1.", show_default=False)
]
Work = Callable[[TenantAdmin, str, Values], Awaitable[Tenant]]


def _by_options(work: Work, said: str) -> Callable[..., None]:
    """A command that has a tenant made or changed as its options say."""

    def command(
        context: typer.Context,
        name: Name,
        tier: TierOption = None,
        weight: Weight = None,
        model: Models = None,
        fallback: Fallbacks = None,
    ) -> None:
        values = models_wished(model)
        if tier is not None:
            values["tier"] = tier.value
        if weight is not None:
            values["weight"] = weight
        if fallback is not None:
            values["fallbacks"] = [] if fallback == ["none"] else fallback
        administer(context.obj.settings(), lambda admin: work(admin, name, values))
        typer.echo(said.format(name=name))

    return command


app.command("create", help="Make a tenant. Its limits are set by `daemun limits`.")(
    _by_options(
        lambda admin, name, values: admin.create_tenant(name, values),
        "The tenant {name} is made. 'daemun keys create --tenant {name} --project PROJECT' makes a key for it.",
    )
)


@app.command("list")
def list_tenants(context: typer.Context) -> None:
    """All tenants."""
    table = Table("tenant", "tier", "weight", "models", "fallbacks", "limits", "created", "", box=None, pad_edge=False)
    for tenant in administer(context.obj.settings(), lambda admin: admin.tenants()):
        own = (tenant.tier.value, f"{tenant.weight:g}", models_shown(tenant.models), ", ".join(tenant.fallbacks) or "-")
        table.add_row(tenant.name, *own, limits_shown(tenant.limits), when(tenant.created_at), _state(tenant.disabled))
    print_table(table)


@app.command("show")
def show_tenant(context: typer.Context, name: Name) -> None:
    """One tenant, its projects and how many keys each has."""

    async def work(admin: TenantAdmin) -> tuple[Tenant, list[Project], list[Key]]:
        return await admin.tenant(name), await admin.projects(name), await admin.keys(name)

    tenant, its_projects, keys = administer(context.obj.settings(), work)
    typer.echo(f"tenant     {tenant.name} {_state(tenant.disabled)}")
    typer.echo(f"tier       {tenant.tier.value}, weight {tenant.weight:g}")
    typer.echo(f"models     {models_shown(tenant.models)}")
    typer.echo(f"fallbacks  {', '.join(tenant.fallbacks) or '-'}")
    typer.echo(f"limits     {limits_shown(tenant.limits)}\n")
    table = Table("project", "models", "limits", "keys", "", box=None, pad_edge=False)
    for project in its_projects:
        count = sum(key.project == project.name and key.revoked_at is None for key in keys)
        own = (models_shown(project.models), limits_shown(project.limits), str(count), _state(project.disabled))
        table.add_row(project.name, *own)
    print_table(table)


app.command("change", help="Change a tenant; what is not named stays. `--fallback none` for no fallbacks.")(
    _by_options(lambda admin, name, values: admin.change_tenant(name, values), "The tenant {name} is changed.")
)


@app.command("disable")
def disable_tenant(context: typer.Context, name: Name) -> None:
    """Refuse all of a tenant's keys, within 2 s, until it is enabled again."""
    administer(context.obj.settings(), lambda admin: admin.change_tenant(name, {"disabled": True}))
    typer.echo(f"The tenant {name} is disabled.")


@app.command("enable")
def enable_tenant(context: typer.Context, name: Name) -> None:
    """Let its keys work again."""
    administer(context.obj.settings(), lambda admin: admin.change_tenant(name, {"disabled": False}))
    typer.echo(f"The tenant {name} is enabled.")


@app.command("delete")
def delete_tenant(context: typer.Context, name: Name) -> None:
    """Delete a tenant whose keys are all revoked. What it used stays in the ledger."""
    administer(context.obj.settings(), lambda admin: admin.delete_tenant(name))
    typer.echo(f"The tenant {name} is deleted.")


@projects.command("create")
def create_project(context: typer.Context, tenant: Name, name: ProjectName, model: Models = None) -> None:
    """Make a project."""
    administer(context.obj.settings(), lambda admin: admin.create_project(tenant, name, models_wished(model)))
    typer.echo(f"The project {name} of {tenant} is made.")


@projects.command("change")
def change_project(context: typer.Context, tenant: Name, name: ProjectName, model: Models = None) -> None:
    """Change a project; what is not named stays."""
    administer(context.obj.settings(), lambda admin: admin.change_project(tenant, name, models_wished(model)))
    typer.echo(f"The project {name} of {tenant} is changed.")


@projects.command("disable")
def disable_project(context: typer.Context, tenant: Name, name: ProjectName) -> None:
    """Refuse its keys, within 2 s, until it is enabled again."""
    administer(context.obj.settings(), lambda admin: admin.change_project(tenant, name, {"disabled": True}))
    typer.echo(f"The project {name} of {tenant} is disabled.")


@projects.command("enable")
def enable_project(context: typer.Context, tenant: Name, name: ProjectName) -> None:
    """Let its keys work again."""
    administer(context.obj.settings(), lambda admin: admin.change_project(tenant, name, {"disabled": False}))
    typer.echo(f"The project {name} of {tenant} is enabled.")


@projects.command("delete")
def delete_project(context: typer.Context, tenant: Name, name: ProjectName) -> None:
    """Delete a project whose keys are all revoked."""
    administer(context.obj.settings(), lambda admin: admin.delete_project(tenant, name))
    typer.echo(f"The project {name} of {tenant} is deleted.")


def models_shown(models: tuple[str, ...] | None) -> str:
    return ALL if models is None else ", ".join(models) or "none"


def models_wished(models: list[str] | None) -> dict[str, object]:
    """The value for `models`, if any was named."""
    return {} if models is None else {"models": None if models == [ALL] else models}


def _state(disabled: bool) -> str:
    return "disabled" if disabled else ""
