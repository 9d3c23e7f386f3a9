"""The client's stream is what the engine would have sent it, and every cut point has its counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol import continuation
from gateway.protocol.continuation import CHAT, COMPLETIONS
from gateway.protocol.openai import UsageWish
from gateway.protocol.recorder import Recorder
from gateway.protocol.sse import DONE, EventSplitter
from gateway.protocol.stream_reader import StreamReader
from gateway.protocol.usage import NO_USAGE, Usage
from tests.strategies import cuts, generations
from tests.vllm_stream import Generation, Step, chat, cut

wishes = st.sampled_from(UsageWish)


def reader_for(generation: Generation, wish: UsageWish) -> StreamReader:
    return StreamReader(wish, single_choice=generation.single_choice, n=generation.n)


def recorder(wish: UsageWish, *, chat: bool = True) -> Recorder:
    plan = continuation.plan(CHAT if chat else COMPLETIONS, {})
    assert plan is not None
    return Recorder(wish, plan)


def client_sees(reader: StreamReader, events: list[bytes], points: list[int]) -> bytes:
    splitter = EventSplitter()
    out = b""
    for data in cut(b"".join(events), points):
        for event in splitter.feed(data):
            out += reader.read(event)
    return out + reader.rest() + splitter.rest()


@given(generations(silent=True), wishes, st.booleans(), cuts)
def test_client_gets_the_bytes_that_its_own_options_would_have_brought(
    generation: Generation, wish: UsageWish, ids: bool, points: list[int]
) -> None:
    """Counts are cut out; token ids are the client's own. With several choices the fingerprint at the end is lost."""
    expected = generation.events(wish, ids=ids, fingerprint=generation.single_choice)
    asked = generation.events(UsageWish.EVERY_CHUNK, ids=ids)
    assert client_sees(reader_for(generation, wish), asked, points) == b"".join(expected)


@given(generations(single=True, silent=True), wishes, cuts)
def test_token_ids_that_the_gateway_asked_for_are_cut_out(generation: Generation, wish: UsageWish, points: list[int]) -> None:
    """And with them the chunks that were sent for their sake alone."""
    asked = generation.events(UsageWish.EVERY_CHUNK, ids=True)
    assert client_sees(recorder(wish, chat=generation.chat), asked, points) == b"".join(generation.events(wish))


@given(generations(single=True), st.booleans())
def test_stream_that_ends_early_loses_no_text(generation: Generation, recorded: bool) -> None:
    """What is held for the fingerprint comes out even if the stream ends early."""
    whole = generation.events(UsageWish.EVERY_CHUNK, ids=recorded)
    bare = [event for event in generation.events(UsageWish.NONE, fingerprint=False) if event != DONE]
    for end in range(len(whole)):
        reader = recorder(UsageWish.NONE, chat=generation.chat) if recorded else StreamReader(UsageWish.NONE)
        out = b"".join(reader.read(event) for event in whole[:end]) + reader.rest()
        assert _without_fingerprint(out, generation) == b"".join(bare[:end])


def _without_fingerprint(out: bytes, generation: Generation) -> bytes:
    """A text cannot hold these quotes unescaped, so only the field itself is taken out."""
    return out.replace(f',"system_fingerprint":"{generation.fingerprint}"'.encode(), b"")


@given(generations(), st.booleans())
def test_counts_are_known_at_every_cut_point(generation: Generation, ids: bool) -> None:
    recorded = ids and generation.single_choice
    reader = recorder(UsageWish.NONE, chat=generation.chat) if recorded else reader_for(generation, UsageWish.NONE)
    assert reader.usage() == NO_USAGE
    *chunks, totals, done = generation.events(UsageWish.EVERY_CHUNK, ids=ids)
    roles = generation.n if generation.chat else 0
    for seen, event in enumerate(chunks, start=1):
        reader.read(event)
        reader.delivered()
        expected = generation.used_after(max(0, seen - roles))
        assert (reader.usage().prompt_tokens, reader.usage().completion_tokens) == (
            expected.prompt_tokens,
            expected.completion_tokens,
        )
    for event in (totals, done):
        reader.read(event)
        reader.delivered()
    assert reader.usage().prompt_tokens == sum(generation.prompt_tokens)
    assert reader.usage().completion_tokens == generation.used_after(len(generation.steps)).completion_tokens
    assert reader.usage().cached_tokens == (generation.cached_tokens or 0)


def test_what_was_read_but_not_delivered_does_not_count() -> None:
    role, first, second, *_ = chat("하나", "둘").events(UsageWish.EVERY_CHUNK)
    reader = StreamReader(UsageWish.NONE)
    for event in (role, first):
        reader.read(event)
    reader.delivered()
    reader.read(second)
    assert reader.usage().completion_tokens == 1


def test_text_that_reads_like_counts_stays() -> None:
    says = ',"usage":{"prompt_tokens":1,"completion_tokens":2} "finish_reason":"stop" "choices":[]'
    asked = chat(says).events(UsageWish.EVERY_CHUNK)
    assert client_sees(StreamReader(UsageWish.NONE), asked, []) == b"".join(chat(says).events(UsageWish.NONE))


def test_finish_chunk_goes_out_before_an_error_event() -> None:
    """An engine that fails after the finish reason has no totals; what was held comes first, without a fingerprint."""
    *_, finish, _, _ = chat("말").events(UsageWish.EVERY_CHUNK)
    reader = StreamReader(UsageWish.NONE)
    failure = b'data: {"error":{"message":"engine died"}}\n\n'
    assert reader.read(finish) + reader.read(failure) == b""
    assert reader.broken
    out = reader.rest()
    assert b'"finish_reason":"stop"' in out
    assert b"usage" not in out
    assert out.endswith(failure)


@pytest.mark.parametrize("wish", UsageWish)
@pytest.mark.parametrize("recorded", [True, False])
def test_foreign_events_pass_whole(wish: UsageWish, recorded: bool) -> None:
    for event in (
        b": keep-alive\n\n",
        b"event: ping\ndata: {}\n\n",
        b"data: no json\n\n",
        b'data: {"a": 1}\n\n',
        b"data: []\n\n",
    ):
        reader = recorder(wish) if recorded else StreamReader(wish)
        assert reader.read(event) == event


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"choices":[{"index":0}],"usage":{"note":"a } brace","prompt_tokens":1}}\n\n',
        b'data: {"choices":[{"index":0}],"usage":{"prompt_tokens":"many"}}\n\n',
        b'data: {"choices":[{"index":0}],"usage":{"prompt_tokens":{},"completion_tokens":1}}\n\n',
        b'data: {"usage":{},"choices":[{"index":0}]}\n\n',
    ],
)
def test_unexpected_counts_are_cut_by_decoding(event: bytes) -> None:
    assert StreamReader(UsageWish.NONE).read(event) == b'data: {"choices":[{"index":0}]}\n\n'


def test_json_with_spaces_is_cut_and_counted() -> None:
    """Servers that write with Python's json module put a space behind each colon."""
    event = b'data: {"choices": [{"index": 0}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}\n\n'
    totals = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}\n\n'
    reader = StreamReader(UsageWish.NONE)
    assert reader.read(event) == b'data: {"choices":[{"index": 0}]}\n\n'
    assert reader.read(totals) == b""
    reader.delivered()
    assert reader.usage() == Usage(3, 2)


def test_streams_without_counts_count_nothing() -> None:
    reader = StreamReader(UsageWish.NONE, single_choice=False)
    for event in (b"data: {}\n\n", b"data: ?\n\n", b": note\n\n", DONE):
        reader.read(event)
    reader.delivered()
    assert reader.usage() == Usage(0, 0)


def test_end_of_the_stream_is_noticed() -> None:
    reader = StreamReader(UsageWish.NONE)
    assert not reader.ended
    reader.read(DONE)
    assert reader.ended


def test_chunks_of_nothing_are_modelled() -> None:
    """The model of vLLM itself: role chunk, output, totals, end."""
    events = Generation(True, 1, (3,), (Step(0, 2, {"content": "네"}, finish="stop"),)).events(UsageWish.FINAL)
    assert [b'"usage"' in event for event in events] == [False, False, True, False]
