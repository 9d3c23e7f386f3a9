"""A hundred thousand clients leave, at every stage of their calls; then no place of any kind is in use."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from itertools import count
from pathlib import Path
from random import Random

from gateway.adapters.lease_file import LeaseFile
from gateway.adapters.local_limits import LocalGrants
from gateway.adapters.metered_limits import MeteredLimits
from gateway.policy.limits import Limits, Scope
from gateway.policy.meter import Kind
from gateway.protocol.openai import UsageWish
from tests.fakes import FakeClient, FakeUpstream, Leaving, Script
from tests.unit.gateway.house import ANNA, MODEL, A, B, House
from tests.vllm_stream import chat

CALLS = 100_000
AT_ONCE = 500
CHAT = "/v1/chat/completions"
STREAM = json.dumps({"model": MODEL, "messages": [], "stream": True}).encode()
WHOLE = json.dumps({"model": MODEL, "messages": []}).encode()
PIECES = tuple(chat("안녕", "!").events(UsageWish.EVERY_CHUNK))


class Scripts(FakeUpstream):
    """Any of these, at random."""

    def __init__(self, random: Random) -> None:
        super().__init__(Script())
        self._random = random
        self._kinds = [
            Script(pieces=PIECES),
            Script(pieces=(b'{"usage":{"prompt_tokens":5,"completion_tokens":2}}',), content_type="application/json"),
            Script(pieces=PIECES[:1], end="reset"),
            Script(head="reset"),
            Script(head="refused"),
            Script(pieces=(b"{}",), status=400),
            Script(pieces=(b"{}",), status=429),
        ]

    def choose(self) -> None:
        self._scripts = [self._random.choice(self._kinds)]
        self.calls.clear()


def leaving(random: Random) -> Leaving:
    match random.randrange(4):
        case 0:
            return Leaving(after_s=random.random() * 0.08)
        case 1:
            return Leaving(after_messages=random.randrange(6))
        case 2:
            return Leaving(send_fails_at=random.randrange(5))
        case _:
            return Leaving(after_s=0.0)


async def test_hundred_thousand_disconnects_leave_nothing_in_use(tmp_path: Path) -> None:
    random, numbers = Random(4), count()  # noqa: S311
    house = House(Script(), places=60, most_waiting=300)
    limits = Limits(concurrent=450, requests_per_minute=10**9, tokens_per_minute=10**9)
    house.tenants.keys["dm-anna"] = replace(ANNA, scopes=(Scope("tenant:anna", limits), Scope("key:anna", limits)))
    async with LocalGrants(LeaseFile(tmp_path), house.clock, offset_ms=0) as grants:
        house.limits = MeteredLimits(grants, house.clock)  # type: ignore[assignment]
        upstream = Scripts(random)
        house.use(upstream)
        client = FakeClient(house.app, authorization="Bearer dm-anna")

        async def caller() -> None:
            while next(numbers) < CALLS:
                upstream.choose()
                if len(house.fleet.ready(MODEL)) < 2:
                    house.fleet.set_ready(MODEL, (A, B))
                await client.post(CHAT, random.choice((STREAM, WHOLE)), leaving(random))
                house.ledger.entries.clear()
                house.fleet.told.clear()
                house.fleet.broken.clear()

        await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
        used = {meter.spent for meter in grants.meters(house.tenants.keys["dm-anna"]) if meter.kind is Kind.CONCURRENT}
    assert used == {0}
    assert house.gate.counts(MODEL) == (0, 0)
    assert upstream.open_now == 0
