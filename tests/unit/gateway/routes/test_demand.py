"""What operators and autoscalers are shown: for loopback clients, of every model."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.fakes import STAYS, FakeClient, Script
from tests.unit.gateway.house import MODEL, House
from tests.unit.gateway.routes.test_inference import CHAT, STREAM, WHOLE, answers

DEMAND = "/internal/demand"
_SELDOM = ("evicted", "left", "resumed", "capped", "fell_back", "canary", "returned", "shadowed", "unshadowed")
IDLE = {"waiting": 0, "waiting_tokens": 0, "running": 0, "running_tokens": 0}


async def demand(house: House) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads((await house.stranger.request("GET", DEMAND)).body)["models"]
    return shown


async def test_idle_gateway_shows_every_model_with_nothing_asked_of_it() -> None:
    house = House(answers())
    house.fleet.now_starting["other-model"] = 2
    shown = await demand(house)
    assert list(shown) == [MODEL, "other-model"]
    assert shown[MODEL]["tiers"] == dict.fromkeys(("reserved", "paid", "free", "batch"), IDLE)
    assert (shown[MODEL]["replicas"], shown[MODEL]["places"]) == ({"ready": 2, "starting": 0}, 4)
    assert shown["other-model"]["replicas"] == {"ready": 0, "starting": 2}
    assert (shown[MODEL]["step"], shown[MODEL]["rejected"], shown[MODEL]["expected_wait_s"]) == ("none", 0, 0)


async def test_running_and_waiting_calls_and_their_tokens_are_shown_by_tier() -> None:
    house = House(Script(head="hangs"), places=1, most_waiting=16)
    calls = []
    for key, patience_s in (("anna", "30"), ("chan", "30"), ("chan", "0")):  # one runs, one waits, one is rejected
        headers = {"authorization": f"Bearer dm-{key}", "x_daemun_max_wait_s": patience_s}
        calls.append(asyncio.create_task(house.client.post(CHAT, STREAM, STAYS, **headers)))
        await asyncio.sleep(0.1)
    shown = (await demand(house))[MODEL]
    assert (shown["tiers"]["paid"]["running"], shown["tiers"]["free"]["waiting"]) == (1, 1)
    assert shown["tiers"]["paid"]["running_tokens"] == shown["tiers"]["free"]["waiting_tokens"] == 256
    assert (shown["rejected"], shown["step"]) == (1, "rejecting")
    assert shown["calls"] == dict.fromkeys(_SELDOM, 0) | {
        "at_once": 1,
        "waited": 1,
        "rejected": 1,
    }
    assert shown["arrivals_per_s"] > 0
    assert {"arrival_tokens_per_s", "drain_per_s", "drain_tokens_per_s", "rejections_per_s", "kv_tokens"} <= shown.keys()
    await asyncio.gather(*calls)


async def test_calls_weigh_what_their_tenants_calls_of_the_model_usually_come_to() -> None:
    house = House(Script(head="hangs"), places=3)
    for _ in range(3):
        house.habits.of("anna", MODEL).see(100, 50, 30, 1)
    prompt = b'[{"role":"user","content":"' + b"a" * 170 + b'"}]'
    for fields, tokens in ((b"", 131), (b',"max_tokens":30000', 131), (b',"max_tokens":10', 110)):
        body = b'{"model":"%b","messages":%b%b}' % (MODEL.encode(), prompt, fields)
        before = (await demand(house))[MODEL]["tiers"]["paid"]["running_tokens"]
        call = asyncio.create_task(house.client.post(CHAT, body))
        await asyncio.sleep(0.1)
        assert (await demand(house))[MODEL]["tiers"]["paid"]["running_tokens"] - before == tokens
        call.cancel()
        await asyncio.wait([call])


async def test_only_worker_says_that_it_is_the_only_one() -> None:
    shown = json.loads((await House(answers()).stranger.request("GET", DEMAND)).body)
    assert shown["workers"] == {"count": 1, "oldest_s": 0.0}


async def test_who_comes_by_a_proxy_is_shown_nothing() -> None:
    stranger = House(answers()).stranger
    assert (await stranger.request("GET", DEMAND, x_forwarded_for="203.0.113.9")).status == 404
    received = await stranger.request("GET", DEMAND, forwarded="for=203.0.113.9")
    assert (received.status, received.error["code"]) == (404, "not_found")


async def test_who_comes_from_elsewhere_is_shown_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    at_home = FakeClient._scope
    monkeypatch.setattr(FakeClient, "_scope", lambda *given: at_home(*given) | {"client": ("203.0.113.9", 50000)})
    house = House(answers())
    assert (await house.stranger.request("GET", DEMAND)).status == 404
    assert (await house.client.post(CHAT, WHOLE)).status == 200
