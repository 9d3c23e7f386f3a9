"""`/v1/models` and `/health`."""

from __future__ import annotations

import msgspec

from tests.fakes import FakeClient, Script
from tests.unit.gateway.house import MODEL, House


async def test_key_sees_the_models_it_may_use_ready_or_not() -> None:
    house = House(Script())
    listed = msgspec.json.decode((await house.client.request("GET", "/v1/models")).body)
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == [MODEL, "other-model"]
    bora = FakeClient(house.app, authorization="Bearer dm-bora")
    assert [model["id"] for model in msgspec.json.decode((await bora.request("GET", "/v1/models")).body)["data"]] == [
        "other-model"
    ]


async def test_one_model_is_found_or_not() -> None:
    house = House(Script())
    found = await house.client.request("GET", f"/v1/models/{MODEL}")
    card = msgspec.json.decode(found.body)
    assert (card["id"], card["object"], card["owned_by"], card["created"]) == (MODEL, "model", "daemun", int(house.clock.time()))
    missing = await house.client.request("GET", "/v1/models/org/none")
    assert (missing.status, missing.error["code"], missing.error["param"]) == (404, "model_not_found", "model")


async def test_models_need_a_key() -> None:
    received = await House(Script()).stranger.request("GET", "/v1/models")
    assert (received.status, received.error["code"]) == (401, "invalid_api_key")
    assert received.headers["x-request-id"].startswith("req_")


async def test_health_tells_alive_from_ready() -> None:
    house = House(Script())
    assert (await house.stranger.request("GET", "/health/live")).status == 200
    unready = await house.stranger.request("GET", "/health/ready")
    assert unready.status == 503
    assert msgspec.json.decode(unready.body) == {"ready": False, "waiting_for": ["a ready replica of other-model"]}
    house.fleet.set_ready("other-model", house.fleet.ready(MODEL))
    assert (await house.stranger.request("GET", "/health/ready")).status == 200
    house.ledger.stuck = True
    stuck = await house.stranger.request("GET", "/health/ready")
    assert (stuck.status, msgspec.json.decode(stuck.body)["waiting_for"]) == (503, ["room for the ledger's journal"])
