"""Calls that succeed, go elsewhere, fail in the middle or are abandoned: what the client gets and what is given back."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from gateway.dispatch import MOST_ATTEMPTS
from gateway.policy.admission import Capacity
from gateway.protocol.openai import UsageWish
from gateway.protocol.usage import Usage
from tests.fakes import FakeClient, FakeConnection, Leaving, Script
from tests.unit.gateway.house import MODEL, A, B, C, D, House
from tests.vllm_stream import Generation, chat, completion_tokens_in

CHAT = "/v1/chat/completions"
TALK = chat("안녕", "하세요", "!")
STREAM = json.dumps({"model": MODEL, "messages": [], "stream": True}).encode()
WHOLE = json.dumps({"model": MODEL, "messages": []}).encode()
ANSWER = '{"id":"1","choices":[{"message":{"content":"네"}}],"usage":{"prompt_tokens":5,"completion_tokens":2}}'.encode()


def says(generation: Generation = TALK, *, end: str = "proper", events: int | None = None) -> Script:
    pieces = tuple(generation.events(UsageWish.EVERY_CHUNK)[:events])
    return Script(pieces=pieces, end="reset" if end == "reset" else "hangs" if end == "hangs" else "proper")


def answers(body: bytes = ANSWER, status: int = 200) -> Script:
    return Script(pieces=(body[:9], body[9:]), status=status, content_type="application/json")


async def test_stream_passes_as_the_client_asked_and_is_accounted_for() -> None:
    house = House(says())
    received = await house.client.post(CHAT, STREAM)
    assert received.body == b"".join(TALK.events(UsageWish.NONE))
    assert received.ended
    assert received.headers["content-type"].startswith("text/event-stream")
    assert received.headers["cache-control"] == "no-cache"
    assert "content-length" not in received.headers
    assert json.loads(house.upstream.calls[0][2])["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert house.has_given_everything_back()
    assert house.upstream.left_early == 0


async def test_entry_says_who_what_where_and_when() -> None:
    house = House(says())
    await house.client.post(CHAT, STREAM)
    entry = house.entry
    assert (entry.endpoint, entry.model, entry.stream) == (CHAT, MODEL, True)
    assert (entry.tenant, entry.project, entry.key_id) == ("anna", "chatbot", "key_anna")
    assert (entry.replica, entry.status, entry.outcome, entry.error_code) == ("a", 200, "completed", None)
    assert (entry.prompt_tokens, entry.completion_tokens, entry.cached_tokens) == (7, 4, 0)
    assert entry.queue_s == 0
    assert entry.first_byte_s == pytest.approx(0.02)
    assert entry.duration_s == pytest.approx(0.01 * (1 + len(TALK.events(UsageWish.EVERY_CHUNK))))
    (reservation,) = house.limits.reservations
    assert reservation.settled == [Usage(7, 4)]


@pytest.mark.parametrize("wish", [UsageWish.FINAL, UsageWish.EVERY_CHUNK])
async def test_counts_come_to_clients_that_ask_for_them(wish: UsageWish) -> None:
    options = {"include_usage": True, "continuous_usage_stats": wish is UsageWish.EVERY_CHUNK}
    body = json.dumps({"model": MODEL, "stream": True, "stream_options": options}).encode()
    assert (await House(says()).client.post(CHAT, body)).body == b"".join(TALK.events(wish))


async def test_whole_answer_passes_as_it_is() -> None:
    house = House(answers())
    received = await house.client.post(CHAT, WHOLE)
    assert received.body == ANSWER
    assert received.headers["content-length"] == str(len(ANSWER))
    assert house.upstream.calls[0][1:3] == (CHAT, WHOLE)
    assert (house.entry.prompt_tokens, house.entry.completion_tokens, house.entry.outcome) == (5, 2, "completed")
    assert house.has_given_everything_back()


async def test_an_engine_that_says_it_failed_is_passed_on_and_recorded_as_failed() -> None:
    events = TALK.events(UsageWish.EVERY_CHUNK)[:2]
    house = House(Script(pieces=(*events, b'data: {"error":{"message":"boom","code":500}}\n\n', b"data: [DONE]\n\n")))
    received = await house.client.post(CHAT, STREAM)
    assert received.body.endswith(b'data: {"error":{"message":"boom","code":500}}\n\ndata: [DONE]\n\n')
    assert (house.entry.outcome, house.entry.error_code, house.entry.status) == ("failed", "upstream_failed", 200)
    assert house.has_given_everything_back()


async def test_empty_answers_are_whole_answers_too() -> None:
    for script in (Script(), Script(content_type="application/json")):
        house = House(script)
        received = await house.client.post(CHAT, WHOLE)
        assert (received.status, received.body, received.ended) == (200, b"", True)
        assert house.entry.outcome == "completed"


async def test_unreachable_replica_is_left_for_another_before_the_first_byte() -> None:
    house = House(Script(head="refused"), Script(head="reset"), says(), replicas=(A, B, C))
    received = await house.client.post(CHAT, STREAM)
    assert received.body == b"".join(TALK.events(UsageWish.NONE))
    assert [call[0] for call in house.upstream.calls] == ["a", "b", "c"]
    assert house.fleet.broken == ["a", "b"]
    assert (house.entry.replica, house.entry.outcome) == ("c", "completed")
    assert house.has_given_everything_back()


async def test_no_call_is_tried_more_than_a_few_times() -> None:
    house = House(Script(head="refused"), replicas=(A, B, C, D))
    assert (await house.client.post(CHAT, STREAM)).status == 502
    assert len(house.upstream.calls) == MOST_ATTEMPTS
    assert house.has_given_everything_back()


@pytest.mark.parametrize("status", [429, 503])
async def test_full_replica_is_left_for_another_and_stays_in_the_fleet(status: int) -> None:
    house = House(answers(b"{}", status), answers())
    assert (await house.client.post(CHAT, WHOLE)).body == ANSWER
    assert [call[0] for call in house.upstream.calls] == ["a", "b"]
    assert house.fleet.broken == []


async def test_only_full_replicas_make_us_overloaded() -> None:
    house = House(answers(b"{}", 503))
    received = await house.client.post(CHAT, WHOLE)
    assert (received.status, received.error["code"]) == (503, "server_overloaded")
    assert "retry-after" in received.headers
    assert len(house.upstream.calls) == MOST_ATTEMPTS
    assert house.entry.outcome == "rejected"


async def test_replicas_that_went_have_forgotten_the_prompt() -> None:
    """Else the one that was chosen longest ago would be chosen, for both would have had it."""
    house = House(answers(), replicas=(A, B))
    for replicas in ((A, B), (B,), (A, B)):
        house.fleet.set_ready(MODEL, replicas)
        await house.client.post(CHAT, WHOLE)
    assert [call[0] for call in house.upstream.calls] == ["a", "b", "b"]


async def test_breaker_hears_of_every_calls_end() -> None:
    house = House(answers(), answers(b"{}", 500), Script(head="hangs"), answers(b"{}", 400), replicas=(A,))
    for _ in range(4):
        await house.client.post(CHAT, WHOLE)
    ends = [what for what, _ in house.fleet.told if what != "began"]
    assert ends == ["succeeded", "failed", "failed", "succeeded"]


async def test_slow_replica_is_not_tried_again() -> None:
    house = House(Script(head="hangs"))
    assert (await house.client.post(CHAT, STREAM)).status == 504
    assert len(house.upstream.calls) == 1
    assert house.fleet.broken == []


async def test_places_without_replicas_fail_and_are_given_back() -> None:
    """Between a fleet's shrinking and the gate's hearing of it."""
    house = House(Script(), replicas=())
    assert (await house.client.post(CHAT, STREAM)).status == 502
    assert house.has_given_everything_back()


async def test_replica_that_comes_back_within_the_patience_serves_the_call() -> None:
    house = House(says(), places=0)
    asyncio.get_running_loop().call_later(50, house.gate.resize, MODEL, Capacity(1))
    assert (await house.client.post(CHAT, STREAM)).status == 200
    assert house.entry.queue_s == pytest.approx(50)


@pytest.mark.parametrize("end", ["reset", "hangs"])
@pytest.mark.parametrize("events", range(1, 5))
async def test_failure_in_mid_stream_is_one_error_event_and_the_end(end: str, events: int) -> None:
    house = House(says(end=end, events=events))
    received = await house.client.post(CHAT, STREAM, accept_language="ko")
    *before, last = received.body.removesuffix(b"\n\n").split(b"\n\n")
    code = "upstream_unreachable" if end == "reset" else "upstream_timeout"
    name, data = last.split(b"\n")
    assert name == b"event: error"
    error = msgspec.json.decode(data.removeprefix(b"data: "))["error"]
    assert error["code"] == code
    assert "모델 서버" in error["message"]
    assert [event + b"\n\n" for event in before] == TALK.events(UsageWish.NONE, fingerprint=False)[:events]
    assert received.ended
    assert [message["type"] for message in received.messages].count("http.response.start") == 1
    assert (house.entry.outcome, house.entry.status, house.entry.error_code) == ("failed", 200, code)
    assert house.entry.completion_tokens == completion_tokens_in(before, TALK)
    assert house.has_given_everything_back()


async def test_replica_whose_answer_broke_off_is_taken_out() -> None:
    house = House(says(end="reset", events=2))
    await house.client.post(CHAT, STREAM)
    assert house.fleet.broken == ["a"]


MESSAGES = 2 + len(TALK.events(UsageWish.NONE))


@pytest.mark.parametrize("messages", range(1, MESSAGES - 2))
async def test_abandoned_stream_gives_back_and_counts_what_was_sent(messages: int) -> None:
    house = House(says())
    received = await house.client.post(CHAT, STREAM, Leaving(after_messages=messages))
    assert len(received.messages) == messages
    assert house.has_given_everything_back()
    assert house.upstream.left_early == 1
    assert (house.entry.outcome, house.entry.status, house.entry.error_code) == ("aborted", 200, None)
    assert house.entry.completion_tokens == completion_tokens_in(received.pieces, TALK)
    assert house.entry.prompt_tokens == (7 if received.pieces else 0)
    (reservation,) = house.limits.reservations
    assert reservation.settled == [Usage(house.entry.prompt_tokens, house.entry.completion_tokens)]


@pytest.mark.parametrize("body", [STREAM, WHOLE])
@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03])
async def test_client_may_leave_at_any_time(body: bytes, after_s: float) -> None:
    house = House(says() if body is STREAM else answers())
    await house.client.post(CHAT, body, Leaving(after_s=after_s))
    assert house.has_given_everything_back()
    assert house.entry.outcome in ("aborted", "completed")


async def test_client_that_leaves_the_queue_is_a_499() -> None:
    house = House(Script(), places=0)
    received = await house.client.post(CHAT, STREAM, Leaving(after_s=1.5))
    assert received.messages == []
    assert (house.entry.outcome, house.entry.status) == ("aborted", 499)
    assert house.entry.duration_s == pytest.approx(1.5)
    assert house.has_given_everything_back()
    assert house.upstream.calls == []


async def test_client_that_leaves_before_the_head_stops_the_engine() -> None:
    house = House(Script(head="hangs"))
    await house.client.post(CHAT, STREAM, Leaving(after_s=5))
    assert house.entry.outcome == "aborted"
    assert house.upstream.left_early == 1
    assert house.has_given_everything_back()


@pytest.mark.parametrize("body", [STREAM, WHOLE])
@pytest.mark.parametrize("failing", [0, 1, 2])
async def test_send_that_fails_is_a_client_that_left(body: bytes, failing: int) -> None:
    """If the very first `send` fails, the body's generator has not begun; everything comes back all the same."""
    house = House(says() if body is STREAM else answers())
    received = await house.client.post(CHAT, body, Leaving(send_fails_at=failing))
    assert len(received.messages) == min(failing, 2 if body is WHOLE else failing)
    assert house.has_given_everything_back()
    assert house.entry.outcome == ("completed" if body is WHOLE and failing == 2 else "aborted")


async def test_server_that_stops_gives_everything_back() -> None:
    house = House(says(end="hangs", events=3))
    serving = asyncio.create_task(house.client.post(CHAT, STREAM))
    await asyncio.sleep(1)
    serving.cancel()
    await asyncio.wait([serving])
    assert serving.cancelled()
    assert house.has_given_everything_back()
    assert house.entry.outcome == "aborted"


async def test_calls_beyond_the_places_wait_their_turn() -> None:
    house = House(says(), places=1, most_waiting=16)
    calls = [house.client.post(CHAT, STREAM, x_daemun_max_wait_s=patience_s) for patience_s in ("9", "9", "9", "0")]
    statuses = [received.status for received in await asyncio.gather(*calls)]
    assert sorted(statuses) == [200, 200, 200, 503]
    assert sorted(entry.outcome for entry in house.ledger.entries) == ["completed"] * 3 + ["rejected"]
    assert house.has_given_everything_back()


async def test_completions_go_to_their_own_path() -> None:
    house = House(answers())
    assert (await house.client.post("/v1/completions", b'{"model":"daemun-demo","prompt":"1+1="}')).status == 200
    assert house.upstream.calls[0][1] == "/v1/completions"


async def test_client_that_leaves_at_the_last_event_has_got_everything() -> None:
    """Official clients close the connection at `[DONE]`, without waiting for the end of the body."""
    house = House(says())
    received = await house.client.post(CHAT, STREAM, Leaving(after_messages=MESSAGES - 1))
    assert received.body.endswith(b"data: [DONE]\n\n")
    assert not received.ended
    assert (house.entry.outcome, house.entry.completion_tokens) == ("completed", 4)
    assert house.has_given_everything_back()


PING = b"event: ping\ndata: {}\n\n"


async def test_stream_that_ends_in_the_middle_of_an_event_ends() -> None:
    received = await House(Script(pieces=(PING, b'data: {"cut'))).client.post("/v1/messages", STREAM)
    assert (received.body, received.ended) == (PING + b'data: {"cut', True)


async def test_half_an_event_does_not_come_before_the_word_that_no_replica_could_go_on() -> None:
    begin = TALK.events(UsageWish.NONE)[0]
    received = await House(Script(pieces=(begin, b'data: {"cut'))).client.post(CHAT, STREAM)
    assert received.body.startswith(begin + b'event: error\ndata: {"type":"error","error":{')


@pytest.mark.parametrize(
    ("path", "events", "used"),
    [
        (
            "/v1/messages",
            [
                b'event: message_start\ndata: {"message":{"usage":{"input_tokens":9,"output_tokens":0}}}\n\n',
                b'event: content_block_delta\ndata: {"delta":{"type":"text_delta","text":"x"}}\n\n',
                b'event: message_delta\ndata: {"usage":{"input_tokens":9,"output_tokens":5}}\n\n',
                b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
            ],
            [(9, 0), (9, 1), (9, 5), (9, 5)],
        ),
        (
            "/v1/responses",
            [
                b'event: response.created\ndata: {"response":{"usage":null}}\n\n',
                b'event: response.output_text.delta\ndata: {"delta":"x"}\n\n',
                b'event: response.completed\ndata: {"response":{"usage":{"input_tokens":9,"output_tokens":5}}}\n\n',
            ],
            [(0, 0), (0, 1), (9, 5)],
        ),
    ],
)
async def test_streams_of_events_pass_as_they_are_and_are_counted_wherever_the_client_leaves(
    path: str, events: list[bytes], used: list[tuple[int, int]]
) -> None:
    house = House(Script(pieces=tuple(b"".join(events)[at : at + 50] for at in range(0, len(b"".join(events)), 50))))
    received = await house.client.post(path, STREAM)
    assert received.body == b"".join(events)
    assert (house.entry.outcome, house.entry.prompt_tokens, house.entry.completion_tokens) == ("completed", *used[-1])
    for number, counted in enumerate(used, start=1):
        house = House(Script(pieces=tuple(events), end="hangs"))
        await house.client.post(path, STREAM, Leaving(after_messages=1 + number))
        whole = number == len(used)
        assert house.entry.outcome == ("completed" if whole else "aborted")
        assert (house.entry.prompt_tokens, house.entry.completion_tokens) == counted
        assert house.has_given_everything_back()


@pytest.mark.parametrize(
    ("path", "event"),
    [
        ("/v1/messages", b'event: error\ndata: {"type":"error","error":{"type":"internal_error","message":"x"}}\n\n'),
        ("/v1/responses", b'event: response.failed\ndata: {"response":{"usage":null}}\n\n'),
    ],
)
async def test_engines_that_fail_in_their_own_events_are_recorded_as_failed(path: str, event: bytes) -> None:
    house = House(Script(pieces=(event,)))
    assert (await house.client.post(path, STREAM)).body == event
    assert (house.entry.outcome, house.entry.error_code) == ("failed", "upstream_failed")


async def test_error_in_the_middle_of_an_event_comes_after_a_whole_one() -> None:
    received = await House(Script(pieces=(PING, b"event: ping\nda"), end="reset")).client.post("/v1/messages", STREAM)
    assert received.body.startswith(PING + b'event: error\ndata: {"type":"error","error":{')


async def test_failure_of_ours_while_a_stream_flows_is_the_calls_and_not_the_engines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(_: FakeConnection, piece: bytes) -> bool:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(FakeClient, "shows_connection", True)
    monkeypatch.setattr(FakeConnection, "_write", breaks)
    house = House(says())
    received = await house.client.post(CHAT, STREAM)
    assert b'"code":"internal_error"' in received.pieces[-1]
    assert "nobody foresaw this" in caplog.text
    assert (house.entry.outcome, house.entry.error_code) == ("failed", "internal_error")
    assert house.fleet.broken == []
    assert house.has_given_everything_back()
