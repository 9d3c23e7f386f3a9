"""One SQLite file: the default store of a single machine. For its keys see `sqlite_tenants`, for its ledger `sqlite_ledger`."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from gateway.adapters import schema
from gateway.adapters.schema import StoreUnusable as StoreUnusable

_WAIT_S = 5.0  # for those who write at that moment
_MIGRATION_WAIT_S = 60.0


def store_path(state_dir: Path) -> Path:
    return state_dir / "daemun.sqlite3"


def connect(path: Path) -> sqlite3.Connection:
    """Open the store, making it on first use and bringing an older one up to date. Raises StoreUnusable."""
    with ExitStack() as unless_all_goes_well:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = _open(path, _WAIT_S)
            unless_all_goes_well.enter_context(closing(connection))
            if not schema.is_newest(_revision(connection), f"The store {path}"):
                _migrate(path)
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA foreign_keys=ON")
        except (OSError, sqlite3.Error) as problem:
            raise _unusable(path, problem) from problem
        unless_all_goes_well.pop_all()
    return connection


def _open(path: Path, wait_s: float) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=wait_s, isolation_level=None, check_same_thread=False)


def _revision(connection: sqlite3.Connection) -> str | None:
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (schema.TABLE,)).fetchone() is None:
        return None
    found = connection.execute(schema.REVISION).fetchone()
    return found and str(found[0])


def _migrate(path: Path) -> None:
    """One process after the other, and all or nothing. Whoever comes second finds it done."""
    failures = schema.failures()
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    engine = create_engine("sqlite://", creator=lambda: _open(path, _MIGRATION_WAIT_S), poolclass=NullPool)
    try:
        with _locked(path.parent), engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # against those who write entries meanwhile
            schema.upgrade(connection)
            connection.commit()
    except failures as problem:
        raise _unusable(path, schema.reason(problem)) from problem


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder and not the file: closing that for a second time would take SQLite's own locks away."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _unusable(path: Path, problem: object) -> StoreUnusable:
    return StoreUnusable(f"The store {path} cannot be used ({problem}). Set state_dir to a folder that can be written.")
