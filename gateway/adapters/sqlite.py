"""One SQLite file: the default store of a single machine. For its keys see `sqlite_tenants`, for its ledger `sqlite_ledger`."""

from __future__ import annotations

import sqlite3
from importlib import resources
from pathlib import Path


class StoreUnusable(Exception):
    """The file cannot be used; the message says why and what to do."""


def store_path(state_dir: Path) -> Path:
    return state_dir / "daemun.sqlite3"


def connect(path: Path) -> sqlite3.Connection:
    """Open the store, making it on first use. Raises StoreUnusable."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.executescript(resources.files("gateway.adapters").joinpath("schema.sql").read_text())
    except (OSError, sqlite3.Error) as problem:
        raise StoreUnusable(
            f"The store {path} cannot be used ({problem}). Set state_dir to a folder that can be written."
        ) from problem
    return connection
