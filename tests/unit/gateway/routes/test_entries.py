"""What a call leaves in the ledger: whose it was, its tokens by kind, what they cost, and how sure that is."""

from __future__ import annotations

import msgspec
import pytest

from gateway.ports import Replica
from gateway.protocol.plain import Engine
from gateway.settings import EnergySettings, EnergyTable, GatewaySettings, PriceSettings, PriceTable
from tests.fakes import Script
from tests.unit.gateway.house import MODEL, House

CHAT = msgspec.json.encode({"model": MODEL, "messages": [{"role": "user", "content": "대문이 뭐예요?"}]})
STREAM = msgspec.json.encode({"model": MODEL, "messages": [{"role": "user", "content": "대문이 뭐예요?"}], "stream": True})
PRICED = GatewaySettings(
    prices=PriceTable(
        default=PriceSettings(prompt=10, completion=10),
        models={MODEL: PriceSettings(prompt=300, cached=30, completion=1200)},
    ),
    energy=EnergyTable(models={MODEL: EnergySettings(prompt=0.5, completion=2.0)}),
)


def whole(**usage: object) -> Script:
    answer = {"id": "1", "object": "chat.completion", "choices": [], "usage": usage}
    return Script(pieces=(msgspec.json.encode(answer),), content_type="application/json")


async def test_entry_has_tokens_by_kind_and_what_they_cost() -> None:
    script = whole(
        prompt_tokens=100,
        completion_tokens=20,
        prompt_tokens_details={"cached_tokens": 40},
        completion_tokens_details={"reasoning_tokens": 5},
    )
    house = House(script, settings=PRICED)
    assert (await house.client.post("/v1/chat/completions", CHAT)).status == 200
    entry = house.entry
    assert (entry.prompt_tokens, entry.cached_tokens, entry.completion_tokens, entry.reasoning_tokens) == (100, 40, 20, 5)
    assert entry.cost_ukrw == 60 * 300 + 40 * 30 + 20 * 1200, "reasoning costs what the rest of the completion does"
    assert entry.energy_wh == pytest.approx(0.06 * 0.5 + 0.02 * 2.0)
    assert (entry.tier, entry.estimated, entry.continued) == ("paid", False, 0)


async def test_nothing_costs_anything_where_no_prices_are_set() -> None:
    house = House(whole(prompt_tokens=100, completion_tokens=20))
    await house.client.post("/v1/chat/completions", CHAT)
    assert (house.entry.cost_ukrw, house.entry.energy_wh) == (0, 0.0)


async def test_counts_that_are_ours_are_called_estimates() -> None:
    chunk = b'data: {"id":"1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"\xed\x95\x9c"}}]}\n\n'
    replica = Replica("a", MODEL, "http://a", Engine.OTHER)
    house = House(Script(pieces=(chunk, chunk, b"data: [DONE]\n\n")), replicas=(replica,), settings=PRICED)
    await house.client.post("/v1/chat/completions", STREAM)
    entry = house.entry
    assert (entry.estimated, entry.completion_tokens) == (True, 2)
    assert entry.cost_ukrw == entry.prompt_tokens * 300 + 2 * 1200


async def test_rejected_call_has_no_tokens_and_costs_nothing() -> None:
    house = House(Script(), settings=PRICED)
    body = msgspec.json.encode({"model": "nobody", "messages": []})
    assert (await house.client.post("/v1/chat/completions", body)).status == 404
    assert (house.entry.outcome, house.entry.cost_ukrw, house.entry.energy_wh, house.entry.tier) == ("rejected", 0, 0.0, "paid")


async def test_no_call_is_begun_while_the_ledger_cannot_keep_entries() -> None:
    house = House(whole(prompt_tokens=1, completion_tokens=1))
    house.ledger.stuck = True
    for body, status in ((CHAT, 503), (b"no json", 400)):
        received = await house.client.post("/v1/chat/completions", body, accept_language="ko")
        assert received.status == status
    refused = await house.client.post("/v1/chat/completions", CHAT)
    assert (refused.error["code"], refused.headers["retry-after"]) == ("ledger_stuck", "2")
    assert house.upstream.calls == []
    assert house.ledger.entries == [], "they would only wait with the others"
    house.ledger.stuck = False
    assert (await house.client.post("/v1/chat/completions", CHAT)).status == 200
    assert len(house.ledger.entries) == 1
    assert house.has_given_everything_back()
