"""A model whose candidate is on trial: clients get one answer in the name that they asked for, whatever the candidate does."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.errors import LimitsUnavailable
from gateway.policy.admission import Capacity
from gateway.ports import Principal, Replica
from gateway.protocol.openai import UsageWish
from gateway.protocol.usage import Usage
from gateway.settings import EnergySettings, EnergyTable, GatewaySettings, PriceSettings, PriceTable, RolloutSettings
from tests.fakes import FakeAnswer, FakeUpstream, Leaving, Script
from tests.unit.gateway.house import MODEL, OTHER, A, House
from tests.unit.gateway.routes.test_inference import CHAT
from tests.vllm_stream import Generation, chat

NEW = "other-model"
ANOTHER = Replica("another", NEW, "http://another")
PRICED = {
    "prices": PriceTable(
        models={MODEL: PriceSettings(prompt=100, completion=400), NEW: PriceSettings(prompt=1000, completion=4000)}
    ),
    "energy": EnergyTable(models={MODEL: EnergySettings(prompt=1.0), NEW: EnergySettings(prompt=3.0)}),
}
FAILURES = {
    "unreachable": Script(head="refused"),
    "reset": Script(head="reset"),
    "silent": Script(head="hangs"),
    "failed": Script(pieces=(b"{}",), status=500),
    "full": Script(pieces=(b"{}",), status=503),
    "stricter": Script(pieces=(b'{"error":{"message":"too long","code":400}}',), status=400),
    "without this address": Script(pieces=(b"{}",), status=404),
}


class Engines(FakeUpstream):
    """A script for each model, for as many calls as come."""

    def __init__(self, old: Script, new: Script) -> None:
        super().__init__(old)
        self._of = {True: [new], False: [old]}
        self.first_byte_s = 60.0

    async def open(self, replica: Replica, path: str, body: bytes, request_id: str, *, repeatable: bool = True) -> FakeAnswer:
        self._scripts = self._of[replica.model == NEW]
        return await super().open(replica, path, body, request_id, repeatable=repeatable)

    def of(self, model: str) -> list[tuple[str, str, bytes, str]]:
        new = {OTHER.id, ANOTHER.id}
        return [call for call in self.calls if (call[0] in new) is (model == NEW)]


def spoken(model: str, *, events: int | None = None, **script: Any) -> Script:
    return Script(pieces=tuple(generation(model).events(UsageWish.EVERY_CHUNK)[:events]), **script)


def generation(model: str) -> Generation:
    talk = chat("안녕", "하세요", "!")
    return Generation(talk.chat, talk.n, talk.prompt_tokens, talk.steps, model=model)


def whole(model: str) -> Script:
    body = {"id": "1", "model": model, "choices": [{"message": {"content": "네"}}]}
    used = {"prompt_tokens": 5, "completion_tokens": 2}
    return Script(pieces=(json.dumps(body | {"usage": used}).encode(),), content_type="application/json")


def trial(old: Script, new: Script, *, places: int = 4, **shares: Any) -> House:
    """The old model on two replicas, the new one on one, with a rollout of these shares."""
    settings = GatewaySettings(rollouts=(RolloutSettings(model=MODEL, candidate=NEW, **shares),), **PRICED)
    house = House(old, settings=settings)
    house.use(Engines(old, new))
    house.fleet.set_ready(NEW, [OTHER])
    house.gate.resize(NEW, Capacity(places))
    return house


def said(*, stream: bool = False, **fields: Any) -> bytes:
    return json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "안녕"}], "stream": stream, **fields}).encode()


def sent_to(house: House, model: str) -> list[dict[str, Any]]:
    upstream = house.upstream
    assert isinstance(upstream, Engines)
    return [json.loads(call[2]) for call in upstream.of(model)]


def is_all_given_back(house: House) -> bool:
    return house.has_given_everything_back() and house.gate.counts(NEW) == (0, 0)


async def shadows_over(house: House) -> None:
    """Long after the clients' calls."""
    await asyncio.sleep(1000)


# The canary


async def test_canary_is_answered_by_the_candidate_in_the_name_of_the_model() -> None:
    house = trial(whole(MODEL), whole(NEW), canary=1.0)
    received = await house.client.post(CHAT, said())
    assert (received.status, json.loads(received.body)["model"]) == (200, MODEL)
    assert received.headers["x-daemun-model-used"] == NEW
    assert received.headers["content-length"] == str(len(received.body))
    assert (sent_to(house, MODEL), sent_to(house, NEW)[0]["model"]) == ([], NEW)
    assert is_all_given_back(house)


async def test_canarys_stream_is_what_the_model_would_have_said() -> None:
    house = trial(spoken(MODEL), spoken(NEW), canary=1.0)
    received = await house.client.post(CHAT, said(stream=True))
    assert received.body == b"".join(generation(MODEL).events(UsageWish.NONE))
    assert received.headers["x-daemun-model-used"] == NEW
    assert house.entry.model == NEW
    assert house.entry.first_byte_s == pytest.approx(0.02)
    assert is_all_given_back(house)


async def test_canary_is_charged_once_at_the_models_price_and_consumes_what_the_candidate_does() -> None:
    house = trial(whole(MODEL), whole(NEW), canary=1.0)
    await house.client.post(CHAT, said())
    entry = house.entry
    assert (entry.tenant, entry.model, entry.asked, entry.replica) == ("anna", NEW, MODEL, "other")
    assert entry.cost_ukrw == 5 * 100 + 2 * 400
    assert entry.energy_wh == pytest.approx(0.005 * 3.0)
    (reservation,) = house.limits.reservations
    assert reservation.settled == [Usage(5, 2)]


async def test_all_others_are_answered_by_the_model_and_told_so() -> None:
    house = trial(whole(MODEL), whole(NEW), canary=0.0)
    received = await house.client.post(CHAT, said())
    assert received.headers["x-daemun-model-used"] == MODEL
    assert (house.entry.model, house.entry.asked, sent_to(house, NEW)) == (MODEL, MODEL, [])


async def test_models_without_a_rollout_know_nothing_of_it() -> None:
    house = trial(whole(MODEL), whole(NEW), canary=1.0)
    received = await house.client.post(CHAT, said(model=NEW))
    assert "x-daemun-model-used" not in received.headers
    assert (house.entry.model, house.entry.asked) == (NEW, "")


async def test_conversation_stays_with_one_version_and_shares_are_kept() -> None:
    house = trial(whole(MODEL), whole(NEW), canary=0.25)
    used = []
    for number in range(200):
        turns = [{"role": "user", "content": f"{number}번째 손님입니다."}]
        for _ in range(2):
            received = await house.client.post(CHAT, said(messages=turns))
            used.append(received.headers["x-daemun-model-used"])
            turns += [{"role": "assistant", "content": "네"}, {"role": "user", "content": "그리고요?"}]
    assert used[::2] == used[1::2]
    assert used.count(NEW) / len(used) == pytest.approx(0.25, abs=0.12)


async def test_key_stays_with_one_version_where_it_is_set_so() -> None:
    house = trial(whole(MODEL), whole(NEW), canary=0.5, sticky="key")
    for number in range(10):
        await house.client.post(CHAT, said(messages=[{"role": "user", "content": f"{number}"}]))
    assert len({entry.model for entry in house.ledger.entries}) == 1


async def test_key_that_may_use_the_model_may_be_answered_by_its_candidate() -> None:
    house = trial(whole(MODEL), whole(NEW), canary=1.0)
    house.tenants.keys["dm-dana"] = Principal("key_dana", "dana", "app", models=frozenset({MODEL}))
    received = await house.client.post(CHAT, said(), authorization="Bearer dm-dana")
    assert (received.status, received.headers["x-daemun-model-used"]) == (200, NEW)


async def test_tokens_are_counted_by_the_model_itself() -> None:
    house = trial(whole(MODEL), whole(NEW), canary=1.0)
    await house.client.post("/tokenize", json.dumps({"model": MODEL, "prompt": "대문"}).encode())
    assert house.entry.model == MODEL


@pytest.mark.parametrize("state", ["gone", "full", "pressed"])
async def test_call_goes_to_the_model_at_once_where_the_candidate_would_not_start_it(state: str) -> None:
    house = trial(whole(MODEL), Script(head="hangs"), canary=1.0, places=1)
    if state == "gone":
        house.fleet.set_ready(NEW, [])
        house.gate.resize(NEW, Capacity(0))
    elif state == "full":
        first = asyncio.create_task(house.client.post(CHAT, said(model=NEW)))
        await asyncio.sleep(0.1)
    else:
        house.gate.full = (NEW,)
    began = house.clock.monotonic()
    received = await house.client.post(CHAT, said())
    assert (received.status, received.headers["x-daemun-model-used"]) == (200, MODEL)
    assert house.clock.monotonic() - began < 0.1
    assert (house.gate.tally(MODEL).canary, len(house.ledger.entries)) == (0, 1)
    if state == "full":
        await first
    assert is_all_given_back(house)


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_client_never_hears_of_a_candidate_that_gives_no_answer(failure: str, stream: bool) -> None:
    script = spoken(MODEL) if stream else whole(MODEL)
    plain = trial(script, script)
    expected = await plain.client.post(CHAT, said(stream=stream))
    house = trial(script, FAILURES[failure], canary=1.0)
    received = await house.client.post(CHAT, said(stream=stream))
    assert (received.status, received.body) == (200, expected.body)
    assert sorted(received.headers) == sorted(expected.headers)
    assert received.headers["x-daemun-model-used"] == MODEL
    of_candidate, own = house.ledger.entries
    assert (own.tenant, own.model, own.asked, own.outcome, own.cost_ukrw > 0) == ("anna", MODEL, MODEL, "completed", True)
    assert (of_candidate.tenant, of_candidate.project, of_candidate.model) == ("", "returned", NEW)
    assert (of_candidate.asked, of_candidate.cost_ukrw) == (MODEL, 0)
    assert of_candidate.outcome == ("rejected" if failure in ("full", "stricter", "without this address") else "failed")
    assert of_candidate.id != own.id
    assert (house.gate.tally(MODEL).canary, house.gate.tally(MODEL).returned) == (1, 1)
    assert len(house.limits.reservations) == 1
    assert is_all_given_back(house)


async def test_what_both_refuse_is_refused_in_the_models_words() -> None:
    house = trial(FAILURES["stricter"], FAILURES["stricter"], canary=1.0)
    received = await house.client.post(CHAT, said())
    assert (received.status, "too long" in received.error["message"]) == (400, True)
    assert received.headers["x-daemun-model-used"] == MODEL


async def test_call_that_must_not_be_sent_twice_is_not() -> None:
    tools = [{"type": "code_interpreter", "container": {"type": "auto"}}]
    body = json.dumps({"model": MODEL, "input": "2+2?", "tools": tools}).encode()
    house = trial(whole(MODEL), FAILURES["reset"], canary=1.0)
    assert (await house.client.post("/v1/responses", body)).status == 502
    assert sent_to(house, MODEL) == []
    house = trial(whole(MODEL), FAILURES["full"], canary=1.0)
    assert (await house.client.post("/v1/responses", body)).status == 200
    assert is_all_given_back(house)


async def test_stream_of_a_canary_goes_on_at_another_replica_of_the_candidate_in_the_models_name() -> None:
    house = trial(spoken(MODEL), spoken(NEW), canary=1.0)
    engines = house.upstream
    assert isinstance(engines, Engines)
    engines._of[True] = [spoken(NEW, events=1, end="reset"), spoken(NEW)]
    house.fleet.set_ready(NEW, [OTHER, ANOTHER])
    received = await house.client.post(CHAT, said(stream=True))
    assert received.body == b"".join(generation(MODEL).events(UsageWish.NONE))
    assert sorted(call[0] for call in engines.calls) == ["another", "other"]
    assert (house.entry.model, house.entry.continued) == (NEW, 1)
    assert is_all_given_back(house)


async def test_canary_whose_client_leaves_is_the_candidates() -> None:
    house = trial(spoken(MODEL), spoken(NEW), canary=1.0)
    await house.client.post(CHAT, said(stream=True), Leaving(after_messages=2))
    assert (house.entry.model, house.entry.asked, house.entry.outcome) == (NEW, MODEL, "aborted")
    assert is_all_given_back(house)


async def test_fall_back_of_a_full_model_is_no_part_of_the_comparison() -> None:
    house = trial(whole(MODEL), whole(NEW), canary=0.0)
    house.gate.full = (MODEL,)
    received = await house.client.post(CHAT, said(models=[NEW]))
    assert received.headers["x-daemun-model-used"] == NEW
    assert (house.entry.model, house.entry.asked) == (NEW, "")
    assert house.entry.cost_ukrw == 5 * 1000 + 2 * 4000


async def test_limit_that_refuses_refuses_before_any_engine_hears_of_it() -> None:
    house = trial(whole(MODEL), whole(NEW), canary=1.0)
    house.limits.refuses = LimitsUnavailable(retry_after_s=1.0)
    assert (await house.client.post(CHAT, said())).status == 503
    assert house.upstream.calls == []
    assert is_all_given_back(house)


# The shadow


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_shadow_is_a_copy_whose_answer_nobody_sees(stream: bool) -> None:
    make = spoken if stream else whole
    house = trial(make(MODEL), make(NEW), shadow=1.0)
    received = await house.client.post(CHAT, said(stream=stream, temperature=0.5))
    await shadows_over(house)
    assert received.headers["x-daemun-model-used"] == MODEL
    assert NEW not in received.body.decode()
    (original,), (copy,) = sent_to(house, MODEL), sent_to(house, NEW)
    assert copy == original | {"model": NEW}
    own, shadow = sorted(house.ledger.entries, key=lambda entry: entry.tenant, reverse=True)
    assert (own.tenant, own.model, own.outcome) == ("anna", MODEL, "completed")
    assert (shadow.tenant, shadow.project, shadow.key_id, shadow.tier) == ("", "shadow", "", "batch")
    assert (shadow.model, shadow.asked, shadow.outcome, shadow.status) == (NEW, MODEL, "completed", 200)
    assert (shadow.id, shadow.cost_ukrw) == (f"{own.id}-shadow", 0)
    assert shadow.completion_tokens == own.completion_tokens
    assert shadow.first_byte_s == pytest.approx(own.first_byte_s)
    assert shadow.energy_wh > own.energy_wh > 0
    assert len(house.limits.reservations) == 1
    assert (house.gate.tally(MODEL).shadowed, house.gate.tally(MODEL).unshadowed) == (1, 0)
    assert is_all_given_back(house)


SHADOWS = FAILURES | {
    "slow": Script(pieces=(b"data: {}\n\n",) * 50, every_s=10.0),
    "breaks off": spoken(NEW, events=2, end="reset"),
    "goes silent": spoken(NEW, events=2, end="hangs"),
    "talks nonsense": Script(pieces=(b"\xff\x00 data: \n\n", b"data: {\n\n"), content_type="text/event-stream"),
    "says that it failed": Script(pieces=(b'data: {"error":{"message":"boom","code":500}}\n\n', b"data: [DONE]\n\n")),
}


@pytest.mark.parametrize("kind", SHADOWS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_no_shadow_touches_its_client(kind: str, stream: bool) -> None:
    """The same bytes at the same times, one charge; and whatever the shadow has taken is given back."""
    script = spoken(MODEL) if stream else whole(MODEL)
    results = []
    for share in (0.0, 1.0):
        house = trial(script, SHADOWS[kind], shadow=share)
        began = house.clock.monotonic()
        received = await house.client.post(CHAT, said(stream=stream))
        took_s = house.clock.monotonic() - began
        await shadows_over(house)
        (entry,) = [entry for entry in house.ledger.entries if entry.tenant]
        charged = [reservation.settled for reservation in house.limits.reservations]
        names = sorted(received.headers)
        figures = entry.cost_ukrw, entry.completion_tokens, entry.outcome, round(entry.first_byte_s or 0, 9)
        results.append((received.body, names, round(took_s, 9), charged, figures))
        assert is_all_given_back(house)
        assert house.gate.tally(MODEL).shadowed == share
    assert results[0] == results[1]


async def test_busy_candidate_gets_no_shadow_and_nothing_waits_for_it() -> None:
    house = trial(whole(MODEL), Script(head="hangs"), shadow=1.0, places=4)
    running = [asyncio.create_task(house.client.post(CHAT, said(model=NEW))) for _ in range(2)]
    await asyncio.sleep(0.1)
    await house.client.post(CHAT, said())
    await asyncio.sleep(1.0)
    assert house.gate.counts(NEW) == (2, 0)
    assert (house.gate.tally(MODEL).shadowed, house.gate.tally(MODEL).unshadowed) == (0, 1)
    await asyncio.gather(*running)


async def test_shadows_take_half_of_the_candidate_at_most_however_many_come_together() -> None:
    house = trial(whole(MODEL), Script(head="hangs"), shadow=1.0, places=4)
    house.gate.resize(MODEL, Capacity(64))
    await asyncio.gather(*(house.client.post(CHAT, said(user=str(number))) for number in range(10)))
    await asyncio.sleep(1.0)
    assert house.gate.counts(NEW) == (2, 0)
    assert (house.gate.tally(MODEL).shadowed, house.gate.tally(MODEL).unshadowed) == (2, 8)
    await shadows_over(house)
    assert is_all_given_back(house)


@pytest.mark.parametrize("why", ["kept", "tools that act", "stuck ledger", "refused", "no candidate", "counts tokens"])
async def test_there_is_no_shadow_of_a_call(why: str) -> None:
    house = trial(FAILURES["stricter"] if why == "refused" else whole(MODEL), whole(NEW), shadow=1.0)
    path, body = CHAT, said(store=why == "kept")
    if why == "tools that act":
        path, body = "/v1/responses", json.dumps({"model": MODEL, "input": "2", "tools": [{"type": "mcp"}]}).encode()
    elif why == "counts tokens":
        path, body = "/tokenize", json.dumps({"model": MODEL, "prompt": "대문"}).encode()
    elif why == "no candidate":
        house.fleet.set_ready(NEW, [])
        house.gate.resize(NEW, Capacity(0))
    call = asyncio.create_task(house.client.post(path, body))
    await asyncio.sleep(0)
    await asyncio.sleep(0.005)
    house.ledger.stuck = why == "stuck ledger"
    await call
    await shadows_over(house)
    assert sent_to(house, NEW) == []
    assert is_all_given_back(house)


async def test_shadow_goes_on_when_its_client_leaves_and_ends_when_the_gateway_does() -> None:
    house = trial(spoken(MODEL), Script(pieces=(b"data: {}\n\n",) * 50, every_s=1.0), shadow=1.0)
    await house.client.post(CHAT, said(stream=True), Leaving(after_messages=2))
    await asyncio.sleep(1.0)
    assert house.gate.counts(NEW) == (1, 0)
    house.app.running.hand_back()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [entry.outcome for entry in house.ledger.entries] == ["aborted", "aborted"]
    assert is_all_given_back(house)


async def test_canaries_have_no_shadows() -> None:
    house = trial(whole(MODEL), whole(NEW), canary=1.0, shadow=0.0)
    await house.client.post(CHAT, said())
    await shadows_over(house)
    assert len(house.upstream.calls) == 1
    assert A.id not in {call[0] for call in house.upstream.calls}
