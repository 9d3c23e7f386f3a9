"""Streams of servers that are not vLLM, as two of them write them: transformers 5.23 and llama-cpp-python 0.3.36."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.openai import UsageWish
from gateway.protocol.plain import Engine, PlainReader, asking, engine_of, named
from gateway.protocol.usage import Estimate, Usage
from tests.strategies import texts

_END = b'"created":1,"model":"daemun/demo@main","object":"chat.completion.chunk","system_fingerprint":""'
TRANSFORMERS = [
    b'data: {"id":"7","choices":[{"delta":{"role":"assistant"},"index":0}],' + _END + b"}\n\n",
    b'data: {"id":"7","choices":[{"delta":{"content":"\xec\x95\x88"},"index":0}],' + _END + b"}\n\n",
    b'data: {"id":"7","choices":[{"delta":{"content":"\xeb\x85\x95"},"index":0}],' + _END + b"}\n\n",
    b'data: {"id":"7","choices":[{"delta":{},"index":0,"finish_reason":"length"}],'
    + _END
    + b',"usage":{"completion_tokens":2,"prompt_tokens":8,"total_tokens":10}}\n\n',
]
_BEGIN = b'data: {"id": "c", "model": "x", "created": 1, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": '
LLAMA_CPP = [
    _BEGIN + b'{"role": "assistant"}, "logprobs": null, "finish_reason": null}]}\n\n',
    _BEGIN + b'{"content": "\\uc548"}, "logprobs": null, "finish_reason": null}]}\n\n',
    _BEGIN + b'{"content": ""}, "logprobs": null, "finish_reason": null}]}\n\n',
    _BEGIN + b'{}, "logprobs": null, "finish_reason": "length"}]}\n\n',
    b"data: [DONE]\n\n",
]
TOTALS = b'data: {"id": "c", "choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 9, "total_tokens": 13}}\n\n'


def read(events: list[bytes], wish: UsageWish, *, prompt_tokens: int = 0) -> tuple[list[bytes], PlainReader]:
    reader = PlainReader(wish, prompt_tokens=prompt_tokens)
    out = [reader.read(event) for event in events]
    reader.delivered()
    return out, reader


@pytest.mark.parametrize("events", [TRANSFORMERS, LLAMA_CPP])
@pytest.mark.parametrize("wish", UsageWish)
def test_what_the_server_says_by_itself_passes(events: list[bytes], wish: UsageWish) -> None:
    out, reader = read(events, wish)
    assert out == events
    assert reader.rest() == b""


@pytest.mark.parametrize(("wish", "gets"), [(UsageWish.NONE, b""), (UsageWish.FINAL, TOTALS), (UsageWish.EVERY_CHUNK, TOTALS)])
def test_totals_are_for_clients_that_asked(wish: UsageWish, gets: bytes) -> None:
    out, reader = read([*LLAMA_CPP[:-1], TOTALS, LLAMA_CPP[-1]], wish)
    assert out == [*LLAMA_CPP[:-1], gets, LLAMA_CPP[-1]]
    assert reader.usage() == Usage(4, 9)
    assert reader.ended


def test_counts_in_the_last_chunk_are_found() -> None:
    _, reader = read(TRANSFORMERS, UsageWish.NONE, prompt_tokens=100)
    assert reader.usage() == Usage(8, 2)


def test_chunks_count_where_the_server_does_not() -> None:
    _, reader = read(LLAMA_CPP, UsageWish.FINAL, prompt_tokens=5)
    assert reader.usage() == Estimate(5, 1)


def test_what_was_not_delivered_does_not_count() -> None:
    reader = PlainReader(UsageWish.NONE)
    reader.read(TRANSFORMERS[1])
    reader.delivered()
    reader.read(TRANSFORMERS[2])
    assert reader.usage() == Estimate(0, 1)


@given(st.binary(max_size=40) | texts.map(str.encode), st.sampled_from(UsageWish))
def test_anything_else_passes(event: bytes, wish: UsageWish) -> None:
    assert PlainReader(wish).read(event) == event


@pytest.mark.parametrize("options", [{}, {"stream_options": None}, {"stream_options": {"include_usage": False, "other": 1}}])
def test_server_is_asked_for_nothing_but_openais_totals(options: dict[str, Any]) -> None:
    fields = {"model": "대문", "seed": 12345678901234567890123, "stream": True} | options
    got = json.loads(asking(json.dumps(fields).encode()))
    assert got == fields | {"stream_options": (options.get("stream_options") or {}) | {"include_usage": True}}


def test_server_gets_the_name_that_it_knows() -> None:
    body = b'{"model":"m","seed":12345678901234567890123, "mod\\u0065l": "\xeb\x8c\x80\xeb\xac\xb8", "x": 0.10}'
    assert named(body, "tiny.gguf") == b'{"model":"tiny.gguf","seed":12345678901234567890123,"x":0.10}'


def test_stream_that_the_server_gives_up_is_known_for_it() -> None:
    out, reader = read([TRANSFORMERS[0], b'data: {"error": "out of memory"}\n\n'], UsageWish.NONE)
    assert out[1]
    assert reader.broken


@pytest.mark.parametrize(
    ("owners", "engine"),
    [
        (("vllm",), Engine.VLLM),
        (("vllm", "vllm"), Engine.VLLM),
        (("me",), Engine.OTHER),
        (("vllm", "x"), Engine.OTHER),
        ((), Engine.OTHER),
    ],
)
def test_vllm_is_told_by_the_owner_of_its_models(owners: tuple[str, ...], engine: Engine) -> None:
    assert engine_of(owners) is engine
