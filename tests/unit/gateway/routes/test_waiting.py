"""What a call gets that has to wait: its place, a word every two seconds if it streams, and an end of its patience."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import msgspec
import pytest

from gateway.policy.admission import Capacity
from gateway.protocol.openai import UsageWish
from tests.fakes import FakeClient, FakeConnection, Leaving, Received, Script
from tests.unit.gateway.house import ANNA, MODEL, A, House
from tests.unit.gateway.routes.test_inference import ANSWER, CHAT, STREAM, TALK, WHOLE, answers, says

WORDS = b"".join(TALK.events(UsageWish.NONE))


async def post_while_full(house: House, body: bytes, *, free_after_s: float) -> Received:
    """There are no places; then there is one."""
    asyncio.get_running_loop().call_later(free_after_s, house.gate.resize, MODEL, Capacity(1))
    return await house.client.post(CHAT, body)


async def test_waiting_stream_hears_where_it_stands_and_then_gets_its_answer() -> None:
    house = House(says(), places=0)
    received = await post_while_full(house, STREAM, free_after_s=5)
    assert received.body == (b": daemun position=1 expected_wait_s=118\n\n: daemun position=1 expected_wait_s=116\n\n" + WORDS)
    assert received.pieces[0] == b": daemun position=1 expected_wait_s=118\n\n"
    assert received.status == 200
    assert received.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (received.headers["cache-control"], received.headers["x-accel-buffering"]) == ("no-cache", "no")
    assert received.headers["x-daemun-queue-position"] == "1"
    assert [message["type"] for message in received.messages].count("http.response.start") == 1
    assert received.ended
    assert (house.entry.outcome, house.entry.status) == ("completed", 200)
    assert house.entry.queue_s == pytest.approx(5)
    assert house.has_given_everything_back()


async def test_stream_that_starts_before_the_first_word_reads_as_if_it_had_not_waited() -> None:
    house = House(says(), places=0)
    received = await post_while_full(house, STREAM, free_after_s=1.9)
    assert received.body == WORDS
    assert received.headers["x-daemun-queue-position"] == "1"


async def test_stream_that_does_not_wait_has_no_position() -> None:
    received = await House(says()).client.post(CHAT, STREAM)
    assert "x-daemun-queue-position" not in received.headers


async def test_error_before_the_first_word_has_its_own_status() -> None:
    house = House(answers(b"{}", 400), places=0)
    received = await post_while_full(house, STREAM, free_after_s=1.9)
    assert (received.status, received.error["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(("script", "code"), [(answers(b"{}", 400), "invalid_request"), (answers(b"{}", 500), "upstream_failed")])
async def test_error_after_the_first_word_is_one_event_and_the_end(script: Script, code: str) -> None:
    house = House(script, places=0, replicas=(A,))
    received = await post_while_full(house, STREAM, free_after_s=2.5)
    comment, event = received.body.removesuffix(b"\n\n").split(b"\n\n")
    assert comment == b": daemun position=1 expected_wait_s=118"
    name, data = event.split(b"\n")
    assert (name, msgspec.json.decode(data.removeprefix(b"data: "))["error"]["code"]) == (b"event: error", code)
    assert [message["type"] for message in received.messages].count("http.response.start") == 1
    assert received.ended
    assert house.has_given_everything_back()


async def test_patience_that_runs_out_is_one_event_for_a_stream_and_a_503_for_others() -> None:
    house = House(Script(), places=0)
    received = await house.client.post(CHAT, STREAM, accept_language="ko")
    last = received.body.removesuffix(b"\n\n").split(b"\n\n")[-1]
    error = msgspec.json.decode(last.removeprefix(b"event: error\ndata: "))["error"]
    assert (received.status, error["code"]) == (200, "queue_timeout")
    assert "120초를 기다렸지만" in error["message"]
    assert house.ledger.entries[0].error_code == "queue_timeout"
    received = await house.client.post(CHAT, WHOLE)
    assert (received.status, received.error["code"]) == (503, "queue_timeout")
    assert int(received.headers["retry-after"]) > 0
    assert received.headers["x-daemun-queue-position"] == "1"
    assert asyncio.get_running_loop().time() == pytest.approx(240)
    assert house.has_given_everything_back()


async def test_whole_answer_waits_in_silence() -> None:
    house = House(answers(), places=0)
    received = await post_while_full(house, WHOLE, free_after_s=7)
    assert (received.body, received.headers["x-daemun-queue-position"]) == (ANSWER, "1")
    assert len(received.messages) == 2


@pytest.mark.parametrize("body", [STREAM, WHOLE])
@pytest.mark.parametrize(("said", "waits_s"), [("1.5", 1.5), ("0", 0), ("1e6", 120)])
async def test_call_may_shorten_its_wait(body: bytes, said: str, waits_s: float) -> None:
    house = House(Script(), places=0)
    received = await house.client.post(CHAT, body, x_daemun_max_wait_s=said)
    assert asyncio.get_running_loop().time() == pytest.approx(waits_s)
    assert received.status == (200 if waits_s > 2 and body is STREAM else 503)
    assert house.has_given_everything_back()


@pytest.mark.parametrize("said", ["soon", "-1", "nan", "inf", "1,5"])
async def test_wait_that_is_no_number_is_a_400_that_names_the_header(said: str) -> None:
    house = House(Script())
    received = await house.client.post(CHAT, STREAM, x_daemun_max_wait_s=said)
    assert (received.status, received.error["param"]) == (400, "x-daemun-max-wait-s")
    assert house.entry.outcome == "rejected"


@pytest.mark.parametrize("messages", range(1, 5))
async def test_client_that_leaves_at_any_word_frees_its_place_at_once(messages: int) -> None:
    house = House(says(), places=0)
    received = await house.client.post(CHAT, STREAM, Leaving(after_messages=messages))
    assert len(received.messages) == messages
    assert asyncio.get_running_loop().time() == pytest.approx(2 * max(1, messages - 1), abs=0.1)
    assert house.has_given_everything_back()
    assert house.upstream.calls == []
    assert house.entry.outcome == "aborted"


@pytest.mark.parametrize("failing", range(3))
async def test_word_that_cannot_be_sent_is_a_client_that_left(failing: int) -> None:
    house = House(says(), places=0)
    await house.client.post(CHAT, STREAM, Leaving(send_fails_at=failing, after_s=9))
    assert house.has_given_everything_back()
    assert (house.entry.outcome, house.upstream.calls) == ("aborted", [])


async def test_client_that_does_not_read_its_words_does_not_hold_up_its_own_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under our own server; under others, it waits until they can send, but no longer than its patience."""
    monkeypatch.setattr(FakeClient, "shows_connection", True)
    monkeypatch.setattr(FakeConnection, "_write", lambda *_: False)
    house = House(says(), places=0)
    received = await post_while_full(house, STREAM, free_after_s=9)
    assert received.body == b": daemun position=1 expected_wait_s=118\n\n" + WORDS
    assert house.entry.queue_s == pytest.approx(9)


async def test_process_that_stops_hands_back_who_waits() -> None:
    house = House(says(), places=0)
    asyncio.get_running_loop().call_later(3, house.app.running.hand_back)
    received = await house.client.post(CHAT, STREAM)
    assert received.body.startswith(b": daemun position=1")
    assert b'"code":"server_stopping"' in received.pieces[-1]
    assert house.has_given_everything_back()


async def test_stream_that_goes_on_elsewhere_does_not_queue_behind_new_calls() -> None:
    """One place; its replica dies in mid-stream while another call waits for it."""
    events = TALK.events(UsageWish.EVERY_CHUNK)
    broken = Script(pieces=tuple(events[:1]), end="reset", every_s=1)
    house = House(broken, says(), says(), places=1)
    first = asyncio.create_task(house.client.post(CHAT, STREAM))
    await asyncio.sleep(0.5)
    second = asyncio.create_task(house.client.post(CHAT, STREAM))
    assert (await first).body == WORDS
    assert not second.done()
    assert (await second).body.endswith(WORDS)
    assert [entry.tenant for entry in house.ledger.entries] == ["anna", "anna"]
    assert house.ledger.entries[0].replica == "b"
    assert house.ledger.entries[0].queue_s == 0
    assert house.has_given_everything_back()


async def test_call_whose_replica_is_full_keeps_its_place_while_it_tries_another() -> None:
    house = House(answers(b"{}", 503), answers(), answers(), places=1)
    first, second = (asyncio.create_task(house.client.post(CHAT, WHOLE)) for _ in range(2))
    done, _ = await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
    assert done == {first}
    assert [call[0] for call in house.upstream.calls[:2]] == ["a", "b"]
    assert json.loads((await second).body)["id"] == "1"


async def test_who_was_told_to_come_again_is_told_from_a_newcomer_of_the_same_tenant() -> None:
    """Each is turned away; the newcomer, at the time that the first was told, gets a time of his own and leaves the first his."""
    house = House(Script(head="hangs"), places=1)
    running = asyncio.create_task(house.client.post(CHAT, WHOLE))
    await asyncio.sleep(0.1)

    async def turned_away(words: str) -> int:
        body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": words}]}).encode()
        received = await house.client.post(CHAT, body, x_daemun_max_wait_s="0")
        assert received.status == 503
        return int(received.headers["retry-after"])

    def promised() -> int:
        return house.gate.demand(MODEL).promised

    await asyncio.sleep(await turned_away("first"))
    assert promised() == 1
    await turned_away("newcomer")
    assert promised() == 2
    await turned_away("first")
    assert promised() == 2, "his first promise is kept, and he has another"
    await running


async def test_same_words_of_another_key_or_user_are_another_callers() -> None:
    house = House(Script(head="hangs"), places=1)
    house.tenants.keys["dm-anna-2"] = replace(ANNA, key_id="key_anna_2")
    running = asyncio.create_task(house.client.post(CHAT, WHOLE))
    await asyncio.sleep(0.1)
    for promised, (key, user) in enumerate([("anna", "u1"), ("anna", "u2"), ("anna-2", "u1"), ("anna", "u1")], 1):
        body = json.dumps({"model": MODEL, "messages": [], "user": user}).encode()
        received = await house.client.post(CHAT, body, x_daemun_max_wait_s="0", authorization=f"Bearer dm-{key}")
        if promised == 1:
            await asyncio.sleep(int(received.headers["retry-after"]))
        assert house.gate.demand(MODEL).promised == min(promised, 3)
    await running
