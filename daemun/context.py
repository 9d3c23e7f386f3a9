"""What the commands have in common: where the settings are, the store they name, and how times are shown."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from daemun.settings import Settings, load
from gateway.adapters import sqlite


@dataclass(slots=True)
class Context:
    """What every command gets: where the settings are."""

    config: Path | None = None

    def settings(self) -> Settings:
        return load(self.config)

    def options(self) -> list[str]:
        """The command-line options that give a child the same settings."""
        return [] if self.config is None else ["--config", str(self.config)]


@contextmanager
def open_store(settings: Settings) -> Iterator[sqlite3.Connection]:
    with closing(sqlite.connect(sqlite.store_path(settings.state_dir))) as connection:
        yield connection


def when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
