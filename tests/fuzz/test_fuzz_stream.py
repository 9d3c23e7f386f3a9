"""Engines' streams: any bytes, cut anywhere, come out whole, and of events only the counts may be missing."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol import continuation
from gateway.protocol.endpoint import CHAT, COMPLETIONS
from gateway.protocol.openai import UsageWish
from gateway.protocol.recorder import Recorder
from gateway.protocol.sse import DATA, EventSplitter
from gateway.protocol.stream_reader import StreamReader
from tests.fuzz.effort import fuzz
from tests.fuzz.json_text import mutated
from tests.strategies import cuts, texts
from tests.vllm_stream import chat, cut

_MARK = b"\x00"  # the cutter's own; no text has it unescaped
_PARTS = (
    b"data: ",
    b"data:",
    b"[DONE]",
    b"\n",
    b"\n\n",
    b"\r\n\r\n",
    b"\r",
    b": ping",
    b"event: error\n",
    b'{"error":{"message":"x"}}',
)
_COUNTS = (
    b'"usage":{',
    b',"usage":{"prompt_tokens":1,"completion_tokens":2}',
    b'"usage": null',
    b'"choices":[]',
    b'"choices": [ ]',
)
_TEXTS = (b'"finish_reason":"stop"', b',"system_fingerprint":"', b'{"a":1', b"{}", b"}", b"]}", b"\xff", "대문".encode())


_CHOICES: tuple[Any, ...] = (
    [],
    [{"index": 0, "delta": {"content": "안녕"}}],
    [{"index": 1, "delta": {}, "finish_reason": "stop"}],
)
_USAGES: tuple[Any, ...] = (
    {"prompt_tokens": 3, "completion_tokens": 2},
    {"note": "}"},
    {"note": '{"usage":{'},
    {"details": {"usage": {}}},
    {},
    None,
    7,
)
_SEPARATORS = ((",", ":"), (", ", ": "))


@st.composite
def loose_events(draw: st.DrawFn) -> bytes:
    """Events of other servers than vLLM: with spaces or without, escaped or not, counts wherever they like."""
    fields = [
        ("choices", draw(st.sampled_from(_CHOICES))),
        ("usage", draw(st.sampled_from(_USAGES))),
        ("system_fingerprint", "fp"),
        ("text", draw(texts)),
    ]
    first, left_out = draw(st.integers(0, 3)), draw(st.sampled_from(["usage", "system_fingerprint", "text", "nothing"]))
    ordered = fields[first:] + fields[:first]
    chunk: dict[str, Any] = {"id": "1"} | {name: value for name, value in ordered if name != left_out}
    separators = draw(st.sampled_from(_SEPARATORS))
    return DATA + json.dumps(chunk, ensure_ascii=draw(st.booleans()), separators=separators).encode() + b"\n\n"


scraps = st.lists(st.sampled_from(_PARTS + _COUNTS + _TEXTS) | st.binary(max_size=4), max_size=30).map(b"".join)
events = st.lists(loose_events() | st.sampled_from([b"data: [DONE]\n\n", b": ping\n\n"]), max_size=6).map(b"".join)
wishes = st.sampled_from(UsageWish)
vllms = st.tuples(st.lists(texts, max_size=4), wishes).map(lambda drawn: b"".join(chat(*drawn[0]).events(drawn[1])))
anything = st.one_of(scraps, events.flatmap(mutated), vllms.flatmap(mutated)).map(lambda data: data.replace(_MARK, b""))


@fuzz(percent=6)
@given(anything, cuts)
def test_splitter_neither_loses_nor_makes_up_a_byte(data: bytes, points: list[int]) -> None:
    splitter = EventSplitter()
    whole = [event for piece in cut(data, points) for event in splitter.feed(piece)]
    assert b"".join(whole) + splitter.rest() == data.replace(b"\r\n", b"\n")
    assert all(event.endswith(b"\n\n") and event.count(b"\n\n") == 1 for event in whole if b"\n\n\n" not in event)
    assert b"\n\n" not in splitter.rest()


@fuzz(percent=12)
@given(anything, wishes, st.booleans(), cuts)
def test_no_bytes_break_the_cutter_and_those_without_counts_pass(
    data: bytes, wish: UsageWish, single: bool, points: list[int]
) -> None:
    out = client_sees(data, wish, single, points)
    if wish is UsageWish.EVERY_CHUNK or b'"usage"' not in data:
        assert out == data.replace(b"\r\n", b"\n")


@fuzz(percent=14)
@given(st.one_of(events, events, vllms), wishes, st.booleans(), cuts)
def test_cutter_takes_nothing_but_counts_out_of_any_servers_events(
    data: bytes, wish: UsageWish, single: bool, points: list[int]
) -> None:
    assert _said(client_sees(data, wish, single, points)) == _said(data)


def client_sees(data: bytes, wish: UsageWish, single: bool, points: list[int]) -> bytes:
    splitter, reader = EventSplitter(), StreamReader(wish, single_choice=single)
    out = b""
    for piece in cut(data, points):
        for event in splitter.feed(piece):
            out += reader.read(event)
        reader.delivered()
    assert reader.usage().prompt_tokens >= 0
    return out + reader.rest() + splitter.rest()


@fuzz(percent=6)
@given(st.one_of(anything, events), wishes, st.booleans(), cuts)
def test_no_bytes_break_the_recorder(data: bytes, wish: UsageWish, is_chat: bool, points: list[int]) -> None:
    plan = continuation.plan(CHAT.path if is_chat else COMPLETIONS.path, {})
    assert plan is not None
    splitter, recorder = EventSplitter(), Recorder(wish, plan)
    for piece in cut(data, points):
        for event in splitter.feed(piece):
            recorder.read(event)
        recorder.delivered()
        recorder.go_on()
    assert recorder.usage().prompt_tokens >= 0


def _said(stream: bytes) -> list[object]:
    """What a stream's events say besides counts, fingerprints and the chunk that holds nothing else."""
    said = [_without_counts(event) for event in stream.split(b"\n\n")]
    return [event for event in said if event is not None]


def _without_counts(event: bytes) -> object:
    try:
        chunk = json.loads(event.removeprefix(DATA), parse_int=str, parse_constant=str)
    except (ValueError, RecursionError):
        return event
    if not isinstance(chunk, dict):
        return event
    if isinstance(chunk.get("usage"), dict) and not chunk.get("choices"):
        return None
    return {name: value for name, value in chunk.items() if name not in ("usage", "system_fingerprint")}
