"""What the commands have in common: where the settings are, the store they name, and how times are shown."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table

from daemun.settings import Settings, load
from gateway.adapters.system_clock import SystemClock
from gateway.adapters.tenancy import open_tenancy
from gateway.policy.limits import Limits
from gateway.policy.tenancy import LIMITS
from gateway.tenant_admin import TenantAdmin

Result = TypeVar("Result")


@dataclass(slots=True)
class Context:
    """What every command gets: where the settings are."""

    config: Path | None = None

    def settings(self) -> Settings:
        return load(self.config)

    def options(self) -> list[str]:
        """The command-line options that give a child the same settings."""
        return [] if self.config is None else ["--config", str(self.config)]


def administer(settings: Settings, work: Callable[[TenantAdmin], Awaitable[Result]]) -> Result:
    """Do some work on tenants, projects and keys, in the store that the settings name."""
    tenancy = open_tenancy(settings.gateway.store.address, settings.state_dir, SystemClock())

    async def run() -> Result:
        async with tenancy.running:
            return await work(tenancy.admin)

    return asyncio.run(run())


def when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def limits_shown(limits: Limits) -> str:
    found = {name: getattr(limits, name) for name in LIMITS}
    return ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in found.items() if value is not None) or "none"


def print_table(table: Table) -> None:
    """As wide as the terminal; where there is none, wide enough for programs to cut."""
    Console(width=None if sys.stdout.isatty() else 200).print(table)
