"""Which calls can go on elsewhere, and what of their request goes along."""

from __future__ import annotations

import json
import sys

import msgspec
import pytest

from gateway.protocol import continuation
from gateway.protocol.chunk import Fields, fields_of
from gateway.protocol.continuation import CHAT, COMPLETIONS, Plan
from gateway.protocol.stop_strings import StopStrings


def plan(endpoint: str = CHAT, /, **fields: object) -> Plan | None:
    return continuation.plan(endpoint, fields_of(b"data: " + json.dumps(fields).encode()) or {})


TALK = {"role": "user", "content": "안녕"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}
TOOLS = [{"type": "function", "function": {"name": "날씨"}}]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"messages": [TALK], "temperature": 0, "top_p": 0.5, "user": "me", "metadata": {"a": "b"}},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "image_url"}, "말"]}, {"role": "assistant"}]},
        {"n": 1, "logprobs": False, "top_logprobs": 0, "echo": False, "use_beam_search": False, "return_token_ids": False},
        {"n": None, "tools": None, "response_format": None, "structured_outputs": None, "newer_field": None},
        {"tools": TOOLS, "tool_choice": "none"},
        {"response_format": {"type": "text"}},
        {"presence_penalty": 1.5, "frequency_penalty": 0.5, "logit_bias": {"5": -100}},
        {"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "high", "include_reasoning": True},
    ],
)
def test_calls_of_plain_text_can_go_on(fields: dict[str, object]) -> None:
    assert plan(**fields) is not None


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"logprobs": True},
        {"logprobs": 0},
        {"top_logprobs": 3},
        {"prompt_logprobs": 0},
        {"tools": TOOLS},
        {"tools": TOOLS, "tool_choice": "auto"},
        {"response_format": {"type": "json_object"}},
        {"response_format": 5},
        {"structured_outputs": {"regex": "가+"}},
        {"guided_json": {}},
        {"use_beam_search": True},
        {"echo": True},
        {"suffix": "끝"},
        {"prompt_embeds": "AAAA"},
        {"include_reasoning": False},
        {"return_token_ids": True},
        {"kv_transfer_params": {}},
        {"vllm_xargs": {"custom": 1}},
        {"messages": [TALK, {"role": "user", "content": [IMAGE]}]},
        {"messages": [{"role": "user", "content": [{"image_url": {"url": "data:,"}}]}]},
        {"messages": "안녕"},
        {"max_tokens": "many"},
        {"stop": [5]},
        {"newer_field": 1},
    ],
)
def test_others_cannot(fields: dict[str, object]) -> None:
    assert plan(**fields) is None


def test_other_endpoints_cannot() -> None:
    assert plan("/v1/responses", input="안녕") is None


@pytest.mark.parametrize(
    ("endpoint", "fields", "limit"),
    [
        (CHAT, {}, None),
        (CHAT, {"max_tokens": 5}, 5),
        (CHAT, {"max_tokens": 5, "max_completion_tokens": 7}, 7),
        (CHAT, {"max_tokens": None, "max_completion_tokens": None}, None),
        (COMPLETIONS, {}, 16),
        (COMPLETIONS, {"max_tokens": None}, 16),
        (COMPLETIONS, {"max_tokens": 5, "max_completion_tokens": 7}, 5),
    ],
)
def test_limit_is_the_one_that_the_engine_would_have_taken(endpoint: str, fields: dict[str, object], limit: int | None) -> None:
    made = plan(endpoint, **fields)
    assert made is not None
    assert made.max_tokens == limit


def test_sampling_goes_along_and_the_prompt_stays_behind() -> None:
    sampling = {
        "model": "문",
        "temperature": 0.5,
        "top_k": 3,
        "logit_bias": {"5": -1.5},
        "stop_token_ids": [4],
        "cache_salt": "a",
    }
    made = plan(
        messages=[TALK], stop=["끝", "그만"], include_stop_str_in_output=True, chat_template="{{ x }}", stream=True, **sampling
    )
    assert made is not None
    assert made.stop == StopStrings(("끝", "그만"), included=True)
    body = json.loads(made.request(b"1,2,3", 1, 9).body)
    for name, value in sampling.items():
        assert body.pop(name) == value
    assert body == {
        "prompt": [1, 2, 3],
        "max_tokens": 9,
        "min_tokens": 0,
        "include_stop_str_in_output": True,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "return_token_ids": True,
    }


def test_seed_of_the_rest_is_another_one() -> None:
    """And a 64-bit integer still."""
    for seed, kept, expected in ((7, 3, 10), (2**63 - 1, 1, -(2**63)), (-1, 1, 0)):
        made = plan(seed=seed)
        assert made is not None
        assert json.loads(made.request(b"1", kept, 9).body)["seed"] == expected


def test_plan_does_not_hold_the_body() -> None:
    """A body may be megabytes long, a stream minutes."""
    body = json.dumps({"temperature": 0.5, "model": "문", "messages": []}).encode()
    before = sys.getrefcount(body)
    made = continuation.plan(CHAT, msgspec.json.decode(body, type=Fields))
    assert made is not None
    assert sys.getrefcount(body) == before
