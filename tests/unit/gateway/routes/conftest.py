"""Every test here runs twice: under a server like others, and under one that shows the client's connection, as ours does."""

from __future__ import annotations

import pytest

from tests.fakes import FakeClient


@pytest.fixture(autouse=True, params=[False, True], ids=["other server", "own server"])
def _server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeClient, "shows_connection", request.param)
