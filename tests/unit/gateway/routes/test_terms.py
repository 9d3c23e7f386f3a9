"""The tier that a call is served in, and what becomes of it under pressure: less output, or another model."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.policy.limits import Tier
from gateway.ports import Principal
from tests.unit.gateway.house import MODEL, House
from tests.unit.gateway.routes.test_inference import CHAT, answers, says

OPEN_TIER = b'{"id":"1","choices":[{"message":{"content":"\\"service_tier\\":null"}}],"service_tier":null,"usage":null}'


def full_house(*, open_other_model: bool = True) -> House:
    """Its calls should rather go elsewhere."""
    house = House(answers())
    house.gate.full = (MODEL,)
    if open_other_model:
        house.open_other_model()
    return house


def body(**fields: Any) -> bytes:
    return json.dumps({"model": MODEL, "messages": [], **fields}).encode()


def sent(house: House) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(house.upstream.calls[-1][2])
    return decoded


@pytest.mark.parametrize(
    ("own", "asked", "served"),
    [
        (Tier.PAID, None, "paid"),
        (Tier.PAID, "auto", "paid"),
        (Tier.PAID, "priority", "paid"),
        (Tier.PAID, "scale", "paid"),
        (Tier.PAID, "flex", "batch"),
        (Tier.PAID, "free", "free"),
        (Tier.FREE, "paid", "free"),
        (Tier.FREE, "default", "free"),
        (Tier.RESERVED, "auto", "reserved"),
        (Tier.RESERVED, "default", "paid"),
        (Tier.RESERVED, "standard_only", "paid"),
        (Tier.BATCH, "reserved", "batch"),
    ],
)
async def test_tier_is_the_one_asked_for_but_never_better_than_the_keys(own: Tier, asked: str | None, served: str) -> None:
    house = House(answers())
    house.tenants.keys["dm-dana"] = Principal("key_dana", "dana", "app", tier=own)
    fields = {} if asked is None else {"service_tier": asked}
    received = await house.client.post(CHAT, body(**fields), authorization="Bearer dm-dana")
    assert received.headers["x-daemun-service-tier"] == served
    assert "service_tier" not in sent(house)


@pytest.mark.parametrize(("asked", "echoed"), [("auto", "default"), ("priority", "default"), ("paid", "paid"), ("flex", "flex")])
async def test_whole_answer_repeats_the_tier_in_the_words_that_it_was_asked_in(asked: str, echoed: str) -> None:
    received = await House(answers(OPEN_TIER)).client.post(CHAT, body(service_tier=asked))
    assert received.body == OPEN_TIER.replace(b'],"service_tier":null', b'],"service_tier":"%b"' % echoed.encode())
    assert received.headers["content-length"] == str(len(received.body))


async def test_whole_answer_passes_as_it_is_where_no_tier_was_asked_for() -> None:
    assert (await House(answers(OPEN_TIER)).client.post(CHAT, body())).body == OPEN_TIER


async def test_engine_gets_a_word_for_the_tier_where_it_repeats_it() -> None:
    house = House(answers())
    await house.client.post("/v1/responses", json.dumps({"model": MODEL, "input": "?", "service_tier": "batch"}).encode())
    assert sent(house) == {"model": MODEL, "input": "?", "service_tier": "flex"}


async def test_error_says_the_tier_too() -> None:
    received = await House(answers(b"{}", 400)).client.post(CHAT, body())
    assert (received.status, received.headers["x-daemun-service-tier"]) == (400, "paid")


async def test_tier_that_nobody_knows_is_a_400() -> None:
    received = await House(answers()).client.post(CHAT, body(service_tier="gold"))
    assert (received.status, received.error["param"]) == (400, "service_tier")


async def test_under_pressure_free_calls_get_less_output_and_are_told_so() -> None:
    house = House(answers())
    house.gate.cap = 64
    for asked, gets in (({}, 64), ({"max_tokens": 1000}, 64), ({"max_tokens": 10}, 10)):
        received = await house.client.post(CHAT, body(**asked), authorization="Bearer dm-chan")
        assert sent(house)["max_tokens"] == gets
        assert received.headers.get("x-daemun-output-cap") == (None if gets == 10 else "64")
    assert house.gate.tally(MODEL).capped == 2
    received = await house.client.post(CHAT, body(max_tokens=1000))
    assert (sent(house)["max_tokens"], "x-daemun-output-cap" in received.headers) == (1000, False)


async def test_capped_stream_goes_on_elsewhere_with_its_lower_allowance() -> None:
    house = House(says())
    house.gate.cap = 64
    received = await house.client.post(CHAT, body(stream=True, max_tokens=1000), authorization="Bearer dm-chan")
    assert received.headers["x-daemun-output-cap"] == "64"
    assert (sent(house)["max_tokens"], sent(house)["return_token_ids"]) == (64, True)


async def test_call_to_a_full_model_goes_to_the_first_fall_back_that_it_may_use_and_that_has_room() -> None:
    house = full_house()
    received = await house.client.post(CHAT, body(models=["nowhere", MODEL, "other-model"]))
    assert received.headers["x-daemun-model-used"] == "other-model"
    assert house.upstream.calls[0][0] == "other"
    assert (house.gate.tally(MODEL).fell_back, house.gate.tally("other-model").at_once) == (1, 1)
    assert sent(house) == {"model": "other-model", "messages": []}
    assert (house.entry.model, house.entry.replica) == ("other-model", "other")
    assert house.has_given_everything_back()


async def test_fall_back_of_the_key_is_taken_where_the_request_names_none() -> None:
    house = full_house()
    house.tenants.keys["dm-dana"] = Principal("key_dana", "dana", "app", fallbacks=("other-model",))
    received = await house.client.post(CHAT, body(), authorization="Bearer dm-dana")
    assert received.headers["x-daemun-model-used"] == "other-model"


@pytest.mark.parametrize("fields", [{"models": ["other-model"]}, {"models": []}, {}])
async def test_fall_backs_never_reach_the_engine_and_change_nothing_while_there_is_room(fields: dict[str, Any]) -> None:
    house = House(answers())
    house.open_other_model()
    received = await house.client.post(CHAT, body(**fields))
    assert sent(house) == {"model": MODEL, "messages": []}
    assert "x-daemun-model-used" not in received.headers


async def test_fall_back_without_room_is_passed_over() -> None:
    house = full_house(open_other_model=False)
    await house.client.post(CHAT, body(models=["other-model"]))
    assert sent(house)["model"] == MODEL


async def test_fall_back_that_the_key_may_not_use_is_passed_over() -> None:
    house = full_house()
    house.tenants.keys["dm-dana"] = Principal("key_dana", "dana", "app", models=frozenset({MODEL}))
    received = await house.client.post(CHAT, body(models=["other-model"]), authorization="Bearer dm-dana")
    assert (received.status, sent(house)["model"]) == (200, MODEL)
