"""A key learns what it has used, and nothing of anybody else's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from gateway.adapters.sqlite_ledger import SqliteLedger
from gateway.entry import Entry
from gateway.errors import UsageUnavailable
from gateway.ledger_query import Group, LedgerQuery, UsageSum

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


def entry(number: int, **changes: object) -> Entry:
    made = Entry(
        f"req_{number}",
        NOW - number * DAY_S,
        "/v1/completions",
        "m",
        False,
        "anna",
        "chatbot",
        "key_anna",
        outcome="completed",
        prompt_tokens=10,
        completion_tokens=5,
        cached_tokens=4,
        reasoning_tokens=2,
        cost_ukrw=1_500_000,
        energy_wh=0.5,
    )
    return msgspec.structs.replace(made, **changes)


@pytest.fixture
def usage(tmp_path: Path) -> FakeUsage:
    path = tmp_path / "store.sqlite3"
    with closing(SqliteLedger(path)) as ledger:
        entries = [
            entry(1),
            entry(2, model="other", outcome="aborted", estimated=True),
            entry(3, key_id="key_bora", tenant="bora"),
            entry(4, key_id="key_bora2"),
            entry(40),
        ]
        ledger.write([msgspec.structs.astuple(one) for one in entries])
    return FakeUsage(path)
