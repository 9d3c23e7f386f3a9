"""What the overload's clients read in answers, however these are cut; and what they ask."""

from __future__ import annotations

import json

import pytest

from benchmarks.overload.http_plan import LoadPlan, TierLoad
from benchmarks.overload.http_request import ANSWER_TOKENS, Requests
from benchmarks.overload.http_stream import Reading

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}],"usage":{"completion_tokens":0}}\n\n'


def framed(*events: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n"


def said(tokens: int) -> bytes:
    return b'data: {"choices":[{"delta":{"content":"\xea\xb0\x80"}}],"usage":{"completion_tokens":%d}}\n\n' % tokens


def read(answer: bytes, size: int) -> tuple[Reading, list[int], bool]:
    """In pieces of that size."""
    told: list[int] = []
    reading = Reading(told.append)
    ended = [reading.feed(answer[begin : begin + size]) for begin in range(0, len(answer), size)]
    assert not any(ended[:-1])
    return reading, told, ended[-1]


def test_tokens_are_told_as_they_come() -> None:
    told: list[int] = []
    reading = Reading(told.append)
    assert not reading.feed(HEAD)
    for piece in (framed(ROLE)[:-5], framed(b": position 3\n\n")[:-5], framed(said(1), said(2))[:-5]):
        assert not reading.feed(piece)
    assert told == [2]
    assert reading.feed(framed(said(3), b"data: [DONE]\n\n"))
    assert told == [2, 1]
    assert (reading.status, reading.error) == (200, "")


@pytest.mark.parametrize("size", [7, 100, 10_000])
def test_stream_ends_where_it_ends_however_it_is_cut(size: int) -> None:
    _, _, ended = read(HEAD + framed(ROLE, said(1), b"data: [DONE]\n\n"), size)
    assert ended


def test_event_without_counts_is_a_token() -> None:
    reading, told, ended = read(HEAD + framed(b'data: {"choices":[{}]}\n\n', b'data: {"choices":[{}]}\n\n'), 10_000)
    assert (told, ended, reading.error) == ([2], True, "")


@pytest.mark.parametrize("size", [9, 10_000])
def test_refusal_says_when_to_come_again(size: int) -> None:
    body = b'{"error":{"message":"full","code":"server_overloaded"}}'
    head = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 12\r\ncontent-length: %d\r\n\r\n" % len(body)
    reading, told, ended = read(head + body, size)
    assert (reading.status, reading.retry_after_s, told, ended) == (503, 12.0, [], True)
    if size > len(body):
        assert reading.error == "server_overloaded"


def test_error_in_the_stream_is_seen() -> None:
    error = b'data: {"error":{"message":"waited too long","code":"queue_timeout"}}\n\n'
    reading, told, ended = read(HEAD + framed(b": waiting\n\n", error), 10_000)
    assert (reading.status, reading.error, told, ended) == (200, "queue_timeout", [], True)


def plan(*, says_tier: bool = True, exact: bool = False, seed: int = 1) -> LoadPlan:
    tiers = [TierLoad("paid", 0.25, 2.0, None, ["a"]), TierLoad("free", 0.75, 4.0, 1.5, ["b", "c"])]
    return LoadPlan([7, 8], "/v1/chat/completions", "m", tiers, says_tier, exact, 1.0, 0.0, 1.0, 0.0, seed)


def test_same_seed_asks_the_same_and_no_two_calls_are_alike() -> None:
    one, again, other = (Requests(plan(seed=seed)) for seed in (1, 1, 2))
    asked = [one.next().raw for _ in range(200)]
    assert asked == [again.next().raw for _ in range(200)]
    assert len(set(asked)) == 200
    assert other.next().raw != asked[0]


def test_calls_say_who_asks_for_how_much_and_how_long_they_wait() -> None:
    requests = Requests(plan())
    asked = [requests.next() for _ in range(400)]
    assert 60 < sum(request.tier == 0 for request in asked) < 140
    assert {request.port for request in asked} == {7, 8}
    for request in asked:
        head, _, body = request.raw.partition(b"\r\n\r\n")
        fields = json.loads(body)
        assert f"content-length: {len(body)}".encode() in head
        assert (b"x-daemun-max-wait-s: 1.5" in head) is (request.tier == 1)
        assert fields["service_tier"] == ("paid", "free")[request.tier]
        tokens = int(fields["messages"][0]["content"].split()[-2])
        assert ANSWER_TOKENS[0] <= tokens <= ANSWER_TOKENS[1] < fields["max_tokens"]


def test_real_engine_is_told_how_long_to_go_on_and_nothing_that_it_does_not_know() -> None:
    head, _, body = Requests(plan(says_tier=False, exact=True)).next().raw.partition(b"\r\n\r\n")
    fields = json.loads(body)
    assert fields["ignore_eos"] is True
    assert "service_tier" not in fields
    assert f"{fields['max_tokens']} tokens" in fields["messages"][0]["content"]
    assert b"x-daemun" not in head
