"""The client's stream is what the engine would have sent it, and every cut point has its counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.openai import UsageWish
from gateway.protocol.sse import DONE, EventSplitter
from gateway.protocol.usage import NO_USAGE, Usage, UsageCutter, UsageMeter, of_body
from tests.strategies import cuts, generations
from tests.vllm_stream import Generation, Step, chat, cut


def client_sees(generation: Generation, wish: UsageWish, points: list[int]) -> bytes:
    splitter, cutter = EventSplitter(), UsageCutter(wish, single_choice=generation.single_choice)
    out = b""
    for data in cut(b"".join(generation.events(UsageWish.EVERY_CHUNK)), points):
        for event in splitter.feed(data):
            out += b"".join(cutter.cut(event))
    return out + b"".join(cutter.rest()) + splitter.rest()


@given(generations(), st.sampled_from(UsageWish), cuts)
def test_client_gets_the_bytes_that_its_own_options_would_have_brought(
    generation: Generation, wish: UsageWish, points: list[int]
) -> None:
    """With several choices the fingerprint that comes with finish reasons is lost, as the cutter says."""
    expected = generation.events(wish, fingerprint=generation.single_choice)
    assert client_sees(generation, wish, points) == b"".join(expected)


@given(generations(single=True))
def test_stream_that_ends_early_loses_no_text(generation: Generation) -> None:
    """What is held for the fingerprint comes out even if the stream ends early."""
    whole = generation.events(UsageWish.EVERY_CHUNK)
    for end in range(len(whole)):
        cutter = UsageCutter(UsageWish.NONE, single_choice=True)
        out = [piece for event in whole[:end] for piece in cutter.cut(event)] + cutter.rest()
        bare = generation.events(UsageWish.NONE, fingerprint=False)
        without_totals = [event for event in bare if event != DONE]
        assert [_bare(piece, generation) for piece in out] == without_totals[: len(out)]
        assert len(out) == min(end, len(without_totals))


def _bare(piece: bytes, generation: Generation) -> bytes:
    """A text cannot hold these quotes unescaped, so only the field itself is taken out."""
    return piece.replace(f',"system_fingerprint":"{generation.fingerprint}"'.encode(), b"")


@given(generations())
def test_meter_has_the_counts_at_every_cut_point(generation: Generation) -> None:
    meter = UsageMeter(single_choice=generation.single_choice, n=generation.n)
    assert meter.usage() == NO_USAGE
    *chunks, totals, done = generation.events(UsageWish.EVERY_CHUNK)
    roles = generation.n if generation.chat else 0
    for seen, event in enumerate(chunks, start=1):
        meter.saw(event)
        expected = generation.used_after(max(0, seen - roles))
        assert (meter.usage().prompt_tokens, meter.usage().completion_tokens) == (
            expected.prompt_tokens,
            expected.completion_tokens,
        )
    meter.saw(totals)
    meter.saw(done)
    total = generation.used_after(len(generation.steps))
    assert meter.usage().prompt_tokens == sum(generation.prompt_tokens)
    assert meter.usage().completion_tokens == total.completion_tokens
    assert meter.usage().cached_tokens == (generation.cached_tokens or 0)


def test_text_that_reads_like_counts_stays() -> None:
    says = ',"usage":{"prompt_tokens":1,"completion_tokens":2} "finish_reason":"stop" "choices":[]'
    assert client_sees(chat(says), UsageWish.NONE, []) == b"".join(chat(says).events(UsageWish.NONE))


def test_finish_chunk_goes_out_before_an_error_event() -> None:
    """An engine that fails after the finish reason has no totals; what was held comes first, without a fingerprint."""
    *_, finish, _, _ = chat("말").events(UsageWish.EVERY_CHUNK)
    cutter = UsageCutter(UsageWish.NONE, single_choice=True)
    failure = b'data: {"error":{"message":"engine died"}}\n\n'
    assert cutter.cut(finish) == []
    first, second = cutter.cut(failure)
    assert b'"finish_reason":"stop"' in first
    assert b"usage" not in first
    assert second == failure


@pytest.mark.parametrize("wish", UsageWish)
def test_foreign_events_pass_whole(wish: UsageWish) -> None:
    for event in (b": keep-alive\n\n", b"event: ping\ndata: {}\n\n", b"data: no json\n\n", b'data: {"a":1}\n\n'):
        assert UsageCutter(wish, single_choice=True).cut(event) == [event]


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"choices":[{"index":0}],"usage":{"note":"a } brace","prompt_tokens":1}}\n\n',
        b'data: {"choices":[{"index":0}],"usage":{"prompt_tokens":"many"}}\n\n',
    ],
)
def test_unexpected_counts_are_cut_by_decoding(event: bytes) -> None:
    assert UsageCutter(UsageWish.NONE, single_choice=True).cut(event) == [b'data: {"choices":[{"index":0}]}\n\n']


def test_json_with_spaces_is_cut_and_counted() -> None:
    """Servers that write with Python's json module put a space behind each colon."""
    event = b'data: {"choices": [{"index": 0}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}\n\n'
    totals = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}\n\n'
    cutter, meter = UsageCutter(UsageWish.NONE, single_choice=True), UsageMeter(single_choice=True)
    meter.saw(event)
    assert meter.usage() == Usage(3, 2)
    assert cutter.cut(event) == [b'data: {"choices":[{"index": 0}]}\n\n']
    assert cutter.cut(totals) == []


def test_whole_answers_are_counted_or_not_at_all() -> None:
    body = b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":1}}}'
    assert (of_body(body).prompt_tokens, of_body(body).completion_tokens, of_body(body).cached_tokens) == (3, 2, 1)
    assert of_body(b'{"choices":[]}') == NO_USAGE
    assert of_body(b"<html>") == NO_USAGE


def test_streams_without_counts_count_nothing() -> None:
    meter = UsageMeter(single_choice=False)
    for event in (b"data: {}\n\n", b"data: ?\n\n", b": note\n\n", DONE):
        meter.saw(event)
    assert meter.usage() == Usage(0, 0)


def test_chunks_of_nothing_are_modelled() -> None:
    """The model of vLLM itself: role chunk, output, totals, end."""
    events = Generation(True, 1, (3,), (Step(0, 2, {"content": "네"}, finish="stop"),)).events(UsageWish.FINAL)
    assert [b'"usage"' in event for event in events] == [False, False, True, False]
