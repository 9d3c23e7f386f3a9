"""A key learns what it has used, and nothing of anybody else's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.adapters.sqlite_ledger import SqliteLedger
from gateway.entry import Entry
from gateway.errors import UsageUnavailable
from gateway.ledger_query import Group, LedgerQuery, UsageSum
from tests.entries import entry, rows
from tests.fakes import Script
from tests.unit.gateway.house import House

DAY_S = 86_400.0
NOW = 1_750_000_000.0  # 2025-06-16T00:06:40+09:00; the house's clock stands a moment behind it


class FakeUsage:
    """A ledger in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_gone = False
        self.asked: list[LedgerQuery] = []

    async def sums(self, query: LedgerQuery, groups: Sequence[Group]) -> list[UsageSum]:
        if self.is_gone:
            raise UsageUnavailable
        self.asked.append(query)
        with closing(SqliteLedger(self.path)) as ledger:
            return ledger.sums(query, groups)


def days_ago(days: int, **changes: object) -> Entry:
    return entry(days, **{"started_at": NOW - days * DAY_S, "tenant": "anna", "key_id": "key_anna", "model": "m", **changes})


@pytest.fixture
def usage(tmp_path: Path) -> FakeUsage:
    path = tmp_path / "store.sqlite3"
    with closing(SqliteLedger(path)) as ledger:
        entries = [
            days_ago(1),
            days_ago(2, model="other", outcome="aborted", estimated=True),
            days_ago(3, key_id="key_bora", tenant="bora"),
            days_ago(4, key_id="key_bora2"),
            days_ago(40),
        ]
        ledger.write(rows(entries))
    return FakeUsage(path)


class Asking:
    """Clients of a house with a ledger."""

    def __init__(self, usage: FakeUsage) -> None:
        self.house = House(Script(), usage=usage)

    async def __call__(self, query: str = "") -> dict[str, Any]:
        received = await self.house.client.request("GET", "/v1/usage", query=query)
        assert received.status == 200, received.body
        decoded: dict[str, Any] = msgspec.json.decode(received.body)
        return decoded


@pytest.fixture
async def ask(usage: FakeUsage) -> Asking:
    return Asking(usage)


async def test_key_sees_its_own_calls_of_the_last_30_days(ask: Asking) -> None:
    told = await ask()
    (one,) = told["data"]
    assert (one["calls"], one["completed"], one["aborted"], one["estimated_calls"]) == (2, 1, 1, 1)
    assert (one["prompt_tokens"], one["cached_tokens"], one["completion_tokens"], one["reasoning_tokens"]) == (
        2000,
        800,
        400,
        100,
    )
    assert (one["cost_krw"], one["energy_wh_estimate"]) == (2.469134, 0.5)
    assert (one["day"], one["model"]) == (None, None)
    assert told["until"].endswith("+09:00")


async def test_other_keys_of_the_same_tenant_are_not_asked_for(ask: Asking, usage: FakeUsage) -> None:
    await ask()
    assert [(query.tenant, query.key_id) for query in usage.asked] == [("anna", "key_anna")]


async def test_sums_are_made_by_day_and_model(ask: Asking) -> None:
    assert [one["model"] for one in (await ask("group_by=model"))["data"]] == ["m", "other"]
    days = [(one["day"], one["model"], one["calls"]) for one in (await ask("group_by=day,model"))["data"]]
    assert days == [("2025-06-14", "other", 1), ("2025-06-15", "m", 1)]


@pytest.mark.parametrize(
    ("query", "calls"),
    [
        ("since=2025-01-01", 3),
        ("since=2025-06-15", 1),
        ("until=2025-06-15", 1),
        ("since=2025-06-15T00:06:41", 0),
        ("since=2025-06-14T15:06:40Z", 1),
        (f"since={int(NOW - 2 * DAY_S)}&until={int(NOW - DAY_S)}", 1),
    ],
)
async def test_period_is_what_is_asked_for(ask: Asking, query: str, calls: int) -> None:
    (one,) = (await ask(query))["data"]
    assert one["calls"] == calls


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("since=yesterday", "since"),
        ("until=2025-13-01", "until"),
        ("since=99999999999999999", "since"),
        ("group_by=tenant", "group_by"),
        ("group_by=day,day", "group_by"),
        ("group_by=day,", "group_by"),
    ],
)
async def test_what_cannot_be_asked_is_refused_by_name(ask: Asking, query: str, param: str) -> None:
    received = await ask.house.client.request("GET", "/v1/usage", query=query)
    assert (received.status, received.error["code"], received.error["param"]) == (400, "invalid_request", param)


async def test_usage_needs_a_key_and_a_ledger(ask: Asking, usage: FakeUsage) -> None:
    assert (await ask.house.stranger.request("GET", "/v1/usage")).status == 401
    usage.is_gone = True
    received = await ask.house.client.request("GET", "/v1/usage")
    assert (received.status, received.error["code"], received.headers["retry-after"]) == (503, "usage_unavailable", "2")
