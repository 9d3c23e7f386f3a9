"""What the simulated engine reads in a request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loadtests.sim_request import Asked, BadRequest, UnknownModel, count, own_length, read


def chat(content: Any = "안녕하세요, 12 tokens", **fields: Any) -> Asked:
    return ask(True, messages=[{"role": "user", "content": content}], **fields)


def ask(is_chat: bool, **fields: Any) -> Asked:
    return read(json.dumps(fields).encode(), chat=is_chat, model="m", longest=1000)


def test_prompt_says_how_long_its_answer_becomes() -> None:
    asked = chat(model="m")
    assert (asked.prompt_tokens, asked.output_tokens, asked.finish) == (8 + 4, 12, "stop")
    assert chat("서울에 대해 30토큰").output_tokens == 30


def test_answer_is_cut_off_at_what_was_allowed() -> None:
    assert [(asked.output_tokens, asked.finish) for asked in (chat(max_tokens=5), chat(max_tokens=12))] == [
        (5, "length"),
        (12, "stop"),
    ]
    assert chat(max_tokens=5, max_completion_tokens=3).output_tokens == 3
    assert (chat(max_tokens=50, ignore_eos=True).output_tokens, chat(ignore_eos=True).output_tokens) == (50, 988)


def test_same_prompt_has_the_same_length_and_others_differ() -> None:
    lengths = [own_length(f"질문 {number}번") for number in range(1000)]
    assert lengths == [own_length(f"질문 {number}번") for number in range(1000)]
    assert 130 < sorted(lengths)[500] < 165
    assert len(set(lengths)) > 200


def test_prompt_of_ids_is_as_long_as_they_are_and_is_gone_on_from() -> None:
    asked = ask(False, prompt=[1, 2, 3, 1041], max_tokens=5, ignore_eos=True)
    assert (asked.prompt_tokens, asked.first_word) == (4, 42)
    assert ask(False, prompt=["여섯 글자요"]).prompt_tokens == 3


def test_content_in_parts_counts_as_its_text() -> None:
    parts = [{"type": "text", "text": "안녕"}, {"type": "text", "text": "하세요, 12 tokens"}]
    assert chat(parts) == chat()


def test_what_a_stream_shall_hold() -> None:
    plain, final, each = (chat(stream=True, stream_options=options) for options in (None, final_only(), on_each()))
    assert (plain.usage_at_end, plain.usage_on_each) == (False, False)
    assert (final.usage_at_end, final.usage_on_each) == (True, False)
    assert (each.usage_at_end, each.usage_on_each) == (True, True)
    assert chat(stream=True, return_token_ids=True).token_ids


def final_only() -> dict[str, bool]:
    return {"include_usage": True}


def on_each() -> dict[str, bool]:
    return {"include_usage": True, "continuous_usage_stats": True}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"prompt": ""}, "one prompt"),
        ({"prompt": [1, "a"]}, "one prompt"),
        ({"prompt": "a", "n": 2}, "n must be 1"),
        ({"prompt": "a", "max_tokens": 1000}, "maximum context length is 1000 tokens"),
        ({"prompt": "가" * 2000}, "your prompt contains 1000 input tokens"),
        ({"prompt": "a", "max_tokens": "a"}, r"\$.max_tokens"),
    ],
)
def test_what_cannot_be_answered_is_said(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        ask(False, **fields)


def test_request_without_messages_or_of_another_model() -> None:
    with pytest.raises(BadRequest, match="messages"):
        ask(True, messages=[])
    with pytest.raises(UnknownModel, match="`other`"):
        chat(model="other")


def test_tokens_are_counted_as_prompts_are() -> None:
    assert count(json.dumps({"prompt": "안녕하세요"}).encode()) == 3
    messages = [{"role": "user", "content": "안녕하세요, 12 tokens"}]
    assert count(json.dumps({"messages": messages}).encode()) == chat().prompt_tokens
