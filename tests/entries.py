"""Ledger entries for tests, each the same call but for what a test says of it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gateway.entry import Entry
from gateway.ledger_query import Row


def entry(number: int = 1, **changes: object) -> Entry:
    """A streamed call that went well, named `req_NUMBER`, a second after the one before; `changes` are fields by name."""
    made = Entry(
        id=f"req_{number}",
        started_at=1000.0 + number,
        endpoint="/v1/chat/completions",
        model="대문",
        stream=True,
        tenant="school",
        project="homework",
        key_id="key_1",
        replica="r1",
        status=200,
        outcome="completed",
        prompt_tokens=1000,
        completion_tokens=200,
        cached_tokens=400,
        queue_s=0.01,
        first_byte_s=0.5,
        duration_s=1.25,
        tier="paid",
        reasoning_tokens=50,
        cost_ukrw=1_234_567,
        energy_wh=0.25,
    )
    return msgspec.structs.replace(made, **changes)


def rows(entries: Iterable[Entry]) -> list[Row]:
    """As ledgers take them."""
    return [msgspec.structs.astuple(one) for one in entries]
