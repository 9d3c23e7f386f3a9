"""Answers in the name of the model that was asked for, and otherwise byte for byte what the engine said."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.openai import UsageWish
from gateway.protocol.renaming import RenamingSplitter, renamed
from tests.vllm_stream import Generation, chat

OLD = "대문/old"
SAID = '"model":"new", model: new, {"model":"new"}'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"id": "1", "model": "new", "choices": []}, {"id": "1", "model": OLD, "choices": []}),
        ({"type": "response.created", "response": {"model": "new"}}, {"type": "response.created", "response": {"model": OLD}}),
        ({"type": "message_start", "message": {"model": "new"}}, {"type": "message_start", "message": {"model": OLD}}),
        ({"model": "new.gguf", "message": {"model": "new"}}, {"model": OLD, "message": {"model": "new"}}),
        ({"choices": [{"message": {"model": "new"}}]}, {"choices": [{"message": {"model": "new"}}]}),
        ({"metadata": {"model": "new"}}, {"metadata": {"model": "new"}}),
        ({"response": "model", "message": {"content": SAID}}, {"response": "model", "message": {"content": SAID}}),
    ],
)
def test_name_is_put_where_apis_have_it_and_nowhere_else(before: object, after: object) -> None:
    assert json.loads(renamed(json.dumps(before).encode(), OLD)) == after


@pytest.mark.parametrize("body", [b"", b"[1]", b"no json", b'{"model":', b'{"error":{"message":"x"}}', b"\xff\xfe"])
def test_what_names_no_model_passes_as_it_is(body: bytes) -> None:
    assert renamed(body, OLD) == body


def named(model: str) -> list[bytes]:
    said = chat("안녕", SAID, "!")
    return Generation(said.chat, said.n, said.prompt_tokens, said.steps, model=model).events(UsageWish.EVERY_CHUNK)


@given(st.data())
def test_stream_is_what_it_would_have_been_under_the_other_name_however_it_is_cut(data: st.DataObject) -> None:
    stream = b"".join(named("new"))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    splitter = RenamingSplitter(OLD)
    assert [event for piece in pieces for event in splitter.feed(piece)] == named(OLD)
    assert splitter.rest() == b""


def test_events_of_two_lines_keep_their_names() -> None:
    splitter = RenamingSplitter(OLD)
    event = b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","model":"new"}}\n\n'
    assert splitter.feed(event + b": a comment\n\n") == [event.replace(b'"new"', f'"{OLD}"'.encode()), b": a comment\n\n"]
