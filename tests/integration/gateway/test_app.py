"""What the wiring alone must get right."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import msgspec
import pytest

from gateway.adapters.sqlite import StoreUnusable, store_path
from gateway.app import create_app
from gateway.settings import GatewaySettings, StaticFleet
from tests.entries import entry

SETTINGS = GatewaySettings(fleets=(StaticFleet(kind="static", urls=("http://127.0.0.1:9",)),))


def test_unusable_state_dir_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnusable, match="state_dir"):
        create_app(SETTINGS, tmp_path / "file")


async def test_broken_store_neither_stops_the_gateway_nor_loses_entries(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The database breaks under a running gateway; what is recorded stays in the journal, to the end and beyond it."""
    app = create_app(SETTINGS, tmp_path)
    journal = tmp_path / "journal"
    said = ""
    async with app.router.lifespan_context(app):
        _break(store_path(tmp_path))
        _leave_an_entry(journal)
        until = time.monotonic() + 5
        while "does not take entries" not in said:
            assert time.monotonic() < until
            await asyncio.sleep(0.02)
            said += capfd.readouterr().err
    assert [path.name for path in journal.iterdir()] == ["77-dead.journal"]


def _break(database: Path) -> None:
    for file in database.parent.glob(database.name + "*"):
        file.unlink()
    database.write_bytes(b"no database " * 100)


def _leave_an_entry(journal: Path) -> None:
    line = msgspec.json.encode(entry())
    (journal / "77-dead.journal").write_bytes(line + b"\n")
