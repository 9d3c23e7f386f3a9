"""`daemun limits`: set and show how much a tenant, a project or a key may use."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from daemun.context import administer, limits_shown, print_table
from daemun.problem import Problem
from gateway.policy.limits import NO_LIMITS, Limits
from gateway.tenant_admin import TenantAdmin

NONE = "none"  # instead of a number

app = typer.Typer(
    no_args_is_help=True,
    help=(
        "How much a tenant, a project or a key may use. The limits of all levels hold; a running gateway notices within 2 s.\n\n"
        "`daemun limits set --tenant school --requests-per-minute 60 --tokens-per-day 1000000`  what is not named stays\n\n"
        "`daemun limits set --tenant school --project homework --krw-per-month 50000`  a project's monthly budget\n\n"
        "`daemun limits set --key key_1f2e3d4c5b6a --concurrent none`  'none' removes a limit\n\n"
        "`daemun limits show`  every level that has limits"
    ),
)


def _number(text: str) -> str:
    if text != NONE and not text.isdecimal():
        raise typer.BadParameter(f"{text!r} is neither a whole number nor '{NONE}'.")
    return text


def _limit(description: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        help=description, metavar=f"NUMBER|{NONE}", callback=_checked, show_default=False
    )
    return option


def _checked(text: str | None) -> str | None:
    return None if text is None else _number(text)


TenantName = Annotated[str | None, typer.Option(help="The tenant whose limits these are.")]
ProjectName = Annotated[str | None, typer.Option(help="The tenant's project whose limits these are.")]
KeyId = Annotated[str | None, typer.Option(help="The id of the key whose limits these are.")]


@app.command("set")
def set_limits(
    context: typer.Context,
    tenant: TenantName = None,
    project: ProjectName = None,
    key: KeyId = None,
    requests_per_minute: Annotated[str | None, _limit("Calls in any minute.")] = None,
    requests_per_day: Annotated[str | None, _limit("Calls in a day.")] = None,
    tokens_per_minute: Annotated[str | None, _limit("Tokens, of prompts and answers, in a minute.")] = None,
    tokens_per_day: Annotated[str | None, _limit("Tokens in a day.")] = None,
    concurrent: Annotated[str | None, _limit("Calls at once.")] = None,
    tokens_per_month: Annotated[str | None, _limit("Tokens in a month of the calendar.")] = None,
    krw_per_month: Annotated[str | None, _limit("Whole won in a month of the calendar.")] = None,
) -> None:
    """Set limits of one level; what is not named stays, 'none' removes."""
    named = {
        "requests_per_minute": requests_per_minute,
        "requests_per_day": requests_per_day,
        "tokens_per_minute": tokens_per_minute,
        "tokens_per_day": tokens_per_day,
        "concurrent": concurrent,
        "tokens_per_month": tokens_per_month,
        "krw_per_month": krw_per_month,
    }
    wished = {name: None if text == NONE else int(text) for name, text in named.items() if text is not None}
    if not wished:
        raise Problem("Name a limit to set, such as --requests-per-minute 60. 'daemun limits set --help' lists them.")
    level = _Level(tenant, project, key)
    limits = administer(context.obj.settings(), lambda admin: level.change(admin, wished))
    typer.echo(f"{level.name}: {limits_shown(limits)}")


@app.command("show")
def show_limits(context: typer.Context, tenant: TenantName = None, project: ProjectName = None, key: KeyId = None) -> None:
    """The limits of one level, or of every level that has any."""
    if tenant is project is key is None:
        table = Table("level", "limits", box=None, pad_edge=False)
        for name, limits in administer(context.obj.settings(), _all_levels):
            table.add_row(name, limits_shown(limits))
        print_table(table)
        return
    level = _Level(tenant, project, key)
    limits = administer(context.obj.settings(), level.get)
    typer.echo(f"{level.name}: {limits_shown(limits)}")


class _Level:
    """What the options name: a tenant, a tenant's project or a key. Raises Problem."""

    def __init__(self, tenant: str | None, project: str | None, key: str | None) -> None:
        if (tenant is None) == (key is None) or (key is not None and project is not None):
            raise Problem("Name one level: --tenant TENANT, or --tenant TENANT --project PROJECT, or --key ID.")
        self._tenant, self._project, self._key = tenant, project, key
        of_tenant = f"tenant {tenant}" if project is None else f"project {project} of {tenant}"
        self.name = of_tenant if key is None else f"key {key}"

    async def get(self, admin: TenantAdmin) -> Limits:
        if self._key is not None:
            return (await admin.key(self._key)).limits
        if self._project is not None:
            return (await admin.project(self._tenant or "", self._project)).limits
        return (await admin.tenant(self._tenant or "")).limits

    async def change(self, admin: TenantAdmin, wished: dict[str, int | None]) -> Limits:
        values = {"limits": wished}
        if self._key is not None:
            return (await admin.change_key(self._key, values)).limits
        if self._project is not None:
            return (await admin.change_project(self._tenant or "", self._project, values)).limits
        return (await admin.change_tenant(self._tenant or "", values)).limits


async def _all_levels(admin: TenantAdmin) -> list[tuple[str, Limits]]:
    found = []
    for tenant in await admin.tenants():
        found.append((f"tenant {tenant.name}", tenant.limits))
        found += [(f"project {one.name} of {tenant.name}", one.limits) for one in await admin.projects(tenant.name)]
    found += [(f"key {key.id}", key.limits) for key in await admin.keys() if key.revoked_at is None]
    return [(name, limits) for name, limits in found if limits != NO_LIMITS]
