"""Counts of the APIs whose answers carry them by themselves, for whole answers, whole streams and streams cut anywhere."""

from __future__ import annotations

import json
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol import counts
from gateway.protocol.endpoint import AT, ENDPOINTS, Api
from gateway.protocol.usage import NO_USAGE, CompletionDetails, Estimate, PromptDetails, Usage
from tests.strategies import texts

IN_OUT = {"input_tokens": 11, "output_tokens": 4, "total_tokens": 15}


def dump(fields: Any) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def event(name: str, **fields: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), dump({"type": name} | fields))


@pytest.mark.parametrize(
    ("path", "body", "used"),
    [
        ("/v1/responses", {"usage": IN_OUT | {"input_tokens_details": {"cached_tokens": 8}}}, Usage(11, 4, PromptDetails(8))),
        ("/v1/responses", {"usage": IN_OUT | {"input_tokens_details": {"cached_tokens": 0}}}, Usage(11, 4)),
        ("/v1/responses", {"usage": None, "status": "failed"}, NO_USAGE),
        ("/v1/messages", {"usage": {"input_tokens": 3, "output_tokens": 4}}, Usage(3, 4)),
        (
            "/v1/messages",
            {"usage": {"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 8, "cache_creation_input_tokens": None}},
            Usage(11, 4, PromptDetails(8)),
        ),
        ("/v1/messages", {"usage": {"input_tokens": 3, "output_tokens": 0, "cache_creation_input_tokens": 8}}, Usage(11, 0)),
        ("/v1/embeddings", {"data": [{"embedding": [0.1]}], "usage": {"prompt_tokens": 9, "total_tokens": 9}}, Usage(9)),
        ("/v1/score", {"data": [], "usage": {"prompt_tokens": 9, "total_tokens": 9, "completion_tokens": 0}}, Usage(9)),
        ("/v1/rerank", {"usage": {"prompt_tokens": 9, "total_tokens": 9}, "results": [{"usage": 1}]}, Usage(9)),
        ("/v1/chat/completions", {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}, "x": None}, Usage(9, 2)),
        ("/tokenize", {"count": 7, "tokens": [1], "usage": {"prompt_tokens": 9}}, NO_USAGE),
        ("/v1/messages/count_tokens", {"input_tokens": 7}, NO_USAGE),
    ],
)
def test_counts_of_whole_answers(path: str, body: dict[str, Any], used: Usage) -> None:
    for spaced in (dump(body), json.dumps(body, indent=2).encode() + b"\n"):
        assert counts.of_body(spaced, AT[path]) == used


@given(st.sampled_from(ENDPOINTS), st.binary(max_size=30), texts)
def test_answers_without_counts_have_none(endpoint: Any, nonsense: bytes, text: str) -> None:
    for body in (nonsense, dump({"text": text}), dump([text]), dump({"usage": text})):
        assert counts.of_body(body, endpoint) == NO_USAGE


@given(texts, st.integers(0, 99))
def test_texts_that_look_like_counts_are_not_read(text: str, tokens: int) -> None:
    body = {"data": [{"usage": {"prompt_tokens": 1}, "text": text}], "usage": {"prompt_tokens": tokens}, "model": text}
    assert counts.of_body(dump(body), AT["/v1/embeddings"]) == Usage(tokens)


def responses_stream(deltas: list[str]) -> list[bytes]:
    """As vLLM 0.29 sends it."""
    begun: dict[str, Any] = {"id": "resp_1", "status": "in_progress", "usage": None, "output": []}
    over = begun | {"status": "completed", "usage": IN_OUT | {"output_tokens": len(deltas) + 2}, "output": deltas}
    return [
        event("response.created", response=begun, sequence_number=0),
        event("response.in_progress", response=begun, sequence_number=1),
        event("response.output_item.added", item={}),
        event("response.content_part.added", part={}),
        *(event("response.output_text.delta", delta=delta, logprobs=[]) for delta in deltas),
        event("response.output_text.done", text="".join(deltas)),
        event("response.completed", response=over, sequence_number=9),
    ]


def messages_stream(deltas: list[str]) -> list[bytes]:
    """As vLLM 0.29 sends it."""
    usage = {"input_tokens": 11, "output_tokens": 0}
    return [
        event("message_start", message={"id": "1", "content": [], "usage": usage}),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        *(event("content_block_delta", index=0, delta={"type": "text_delta", "text": delta}) for delta in deltas),
        event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "s"}),
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": "end_turn"}, usage=usage | {"output_tokens": len(deltas) + 2}),
        event("message_stop"),
    ]


def after_each(api: Api, stream: list[bytes]) -> list[Usage]:
    meter = counts.meter(api)
    used = []
    for one in stream:
        meter.saw(one)
        used.append(meter.usage())
    return used


@given(st.lists(texts, max_size=5))
def test_responses_count_deltas_until_the_end_says_it_exactly(deltas: list[str]) -> None:
    stream = responses_stream(deltas)
    *cut, whole = after_each(Api.RESPONSES, stream)
    assert whole == Usage(11, len(deltas) + 2)
    seen = accumulate(one.startswith(b"event: response.output_text.delta") for one in stream)
    assert cut == [Estimate(0, number) for number, _ in zip(seen, cut, strict=False)]


@given(st.lists(texts, max_size=5))
def test_messages_know_the_prompt_at_once_and_all_at_the_end(deltas: list[str]) -> None:
    stream = messages_stream(deltas)
    *cut, counted, stopped = after_each(Api.MESSAGES, stream)
    assert counted == stopped == Usage(11, len(deltas) + 2)
    seen = accumulate(b"text_delta" in one for one in stream)
    assert cut == [Estimate(11, number) for number, _ in zip(seen, cut, strict=False)]


def test_messages_of_servers_that_count_the_prompt_at_the_start_alone() -> None:
    start = event("message_start", message={"usage": {"input_tokens": 3, "output_tokens": 1, "cache_read_input_tokens": 8}})
    end = event("message_delta", delta={}, usage={"output_tokens": 7})
    assert after_each(Api.MESSAGES, [start, end])[-1] == Usage(11, 7, PromptDetails(8))


def test_responses_say_how_much_of_them_was_reasoning() -> None:
    usage = {"input_tokens": 3, "output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 7}}
    told = after_each(Api.RESPONSES, [event("response.completed", response={"usage": usage})])[-1]
    assert told == Usage(3, 9, None, CompletionDetails(7))
    assert (told.reasoning_tokens, told.estimated) == (7, False)


def test_reasoning_and_tools_count_too() -> None:
    names = ("response.reasoning_text.delta", "response.function_call_arguments.delta", "response.mcp_call_arguments.delta")
    assert after_each(Api.RESPONSES, [event(name, delta="x") for name in names])[-1] == Estimate(0, 3)
    kinds = ("thinking_delta", "input_json_delta")
    assert after_each(Api.MESSAGES, [event("content_block_delta", delta={"type": kind}) for kind in kinds])[-1] == Estimate(0, 2)


@pytest.mark.parametrize("name", ["response.incomplete", "response.failed"])
def test_responses_that_end_otherwise_are_counted_exactly_too(name: str) -> None:
    assert after_each(Api.RESPONSES, [event("response.output_text.delta"), event(name, response={"usage": IN_OUT})])[-1] == Usage(
        11, 4
    )


NO_DELTAS = st.binary(max_size=40).filter(lambda event: b"delta" not in event)  # Hypothesis tries words of the code it tests


@given(st.sampled_from([Api.RESPONSES, Api.MESSAGES]), st.lists(NO_DELTAS, max_size=4))
def test_nonsense_is_not_counted(api: Api, stream: list[bytes]) -> None:
    cut_off = [
        b'event: response.completed\ndata: {"resp',
        b"event: message_delta\n\n",
        b"event: message_start\ndata: 7\n\n",
        b": x\n\n",
    ]
    used = after_each(api, stream + cut_off)
    assert used[-1] == Estimate()
