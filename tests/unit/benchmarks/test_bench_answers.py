"""The scripted engine says what vLLM would say, whatever is asked for."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gateway import answers, request
from benchmarks.gateway.answers import Asked
from benchmarks.gateway.load.answer import is_whole_stream, unframed
from gateway.protocol import openai
from gateway.protocol.endpoint import CHAT
from gateway.protocol.openai import UsageWish
from tests.vllm_stream import Generation, Step

asked = st.builds(
    Asked, chunks=st.integers(2, 40), every_ms=st.just(10), usage_at_end=st.booleans(), usage_on_each=st.just(False)
) | st.builds(Asked, chunks=st.integers(2, 40), every_ms=st.just(10), usage_at_end=st.just(True), usage_on_each=st.just(True))


def stream(wanted: Asked) -> bytes:
    return answers.STREAM_HEAD + b"".join(answers.frames(wanted))


@given(asked)
def test_stream_is_byte_for_byte_what_the_model_of_vllm_writes(wanted: Asked) -> None:
    steps = [
        Step(0, 1, {"content": answers.word(number)}, finish="length" if number == wanted.chunks - 1 else None)
        for number in range(1, wanted.chunks)
    ]
    wish = UsageWish.EVERY_CHUNK if wanted.usage_on_each else UsageWish(wanted.usage_at_end)
    theirs = Generation(True, 1, (answers.PROMPT_TOKENS,), tuple(steps), model=answers.MODEL).events(wish)
    assert unframed(stream(wanted)).replace(answers.ID.encode(), b"chatcmpl-9f") == b"".join(theirs)


@given(asked)
def test_there_are_as_many_pieces_as_chunks_were_asked_for(wanted: Asked) -> None:
    assert len(answers.frames(wanted)) == wanted.chunks
    assert is_whole_stream(stream(wanted), wanted.chunks + wanted.usage_at_end)


def test_token_ids_are_given_only_where_asked_for() -> None:
    with_ids = unframed(stream(Asked(chunks=3, token_ids=True)))
    first, second, *_ = [json.loads(line[6:]) for line in with_ids.split(b"\n\n")[:3]]
    assert len(first["prompt_token_ids"]) == answers.PROMPT_TOKENS
    assert second["choices"][0]["token_ids"] == [1001]
    assert b'"token_ids":[' not in unframed(stream(Asked(chunks=3)))


def test_what_the_gateway_asks_for_on_its_own_account_is_understood() -> None:
    passed_on = openai.read(request.streaming_call(64, 10), CHAT).body
    assert answers.read(passed_on) == Asked(chunks=64, every_ms=10, usage_at_end=True, usage_on_each=True, token_ids=True)


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_body_is_understood_however_a_gateway_writes_it_anew(separators: tuple[str, str]) -> None:
    body = json.dumps(json.loads(request.streaming_call(7, 2000)), separators=separators).encode()
    assert answers.read(body) == Asked(chunks=7, every_ms=2000)


def test_short_call_asks_for_no_stream_and_is_some_300_bytes() -> None:
    assert answers.read(request.short_call()) is None
    assert 250 <= len(request.short_call()) <= 350
    assert 250 <= len(answers.completion()) <= 350
