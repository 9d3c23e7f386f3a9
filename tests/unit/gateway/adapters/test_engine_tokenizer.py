"""What the engine's tokenizer is asked, and when nobody can say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.adapters.engine_tokenizer import EngineTokenizer
from gateway.ports import Replica
from gateway.protocol import openai
from gateway.protocol.endpoint import AT
from gateway.protocol.plain import Engine
from tests.fakes import FakeFleet, FakeUpstream, Script

VLLM = Replica("a", "m", "http://a")
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def said(count: int, name: str = "count") -> Script:
    return Script((json.dumps({name: count, "tokens": [1] * count}).encode(),), content_type="application/json")


async def counted(path: str, *scripts: Script, replica: Replica = VLLM, **fields: Any) -> tuple[int | None, list[Any]]:
    """The count, and the bodies of what was asked."""
    upstream = FakeUpstream(*scripts)
    body = json.dumps({"model": "m", **fields}).encode()
    count = await EngineTokenizer(FakeFleet({"m": [replica]}), upstream).count(openai.read(body, AT[path]))
    return count, [json.loads(asked) for _, _, asked, _ in upstream.calls]


async def test_chat_is_asked_with_all_that_shapes_its_prompt_and_nothing_else() -> None:
    shapes: dict[str, Any] = {"messages": [{"role": "user", "content": "안녕"}], "tools": [], "add_special_tokens": True}
    assert await counted(CHAT, said(7), **shapes, max_tokens=5, user="u", models=["n"]) == (7, [{"model": "m", **shapes}])


@pytest.mark.parametrize(
    ("fields", "kwargs"),
    [
        ({"reasoning_effort": "none"}, {"reasoning_effort": "none", "enable_thinking": False}),
        ({"reasoning_effort": "low"}, {"reasoning_effort": "low", "enable_thinking": True}),
        (
            {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False, "x": 1}},
            {"reasoning_effort": "low", "enable_thinking": False, "x": 1},
        ),
        ({"documents": [{"text": "글"}], "reasoning_effort": None}, {"documents": [{"text": "글"}]}),
    ],
)
async def test_what_a_chat_tells_the_template_is_told_as_vllm_does(fields: dict[str, Any], kwargs: dict[str, Any]) -> None:
    _, (asked,) = await counted(CHAT, said(7), messages=[], **fields)
    assert asked == {"model": "m", "messages": [], "chat_template_kwargs": kwargs}


async def test_completions_of_several_texts_are_asked_one_by_one() -> None:
    count, asked = await counted(COMPLETIONS, said(3), said(4), prompt=["가", "나"], add_special_tokens=False)
    assert count == 7
    assert asked == [{"model": "m", "prompt": text, "add_special_tokens": False} for text in "가나"]


@pytest.mark.parametrize(("prompt", "tokens"), [([5, 6, 7], 3), ([[5, 6], [7]], 3), ([], 0)])
async def test_token_ids_are_counted_without_asking(prompt: list[Any], tokens: int) -> None:
    assert await counted(COMPLETIONS, said(9), prompt=prompt) == (tokens, [])


async def test_messages_are_counted_at_their_own_address() -> None:
    count, (asked,) = await counted("/v1/messages", said(8, "input_tokens"), messages=[], system="친절하게", max_tokens=5)
    assert (count, asked) == (8, {"model": "m", "messages": [], "system": "친절하게"})


@pytest.mark.parametrize(
    ("path", "script", "fields"),
    [
        (CHAT, Script((b"{}",), status=400), {"messages": []}),
        (CHAT, Script((b"<html>",)), {"messages": []}),
        (CHAT, Script(head="refused"), {"messages": []}),
        (CHAT, Script(head="hangs"), {"messages": []}),
        (COMPLETIONS, said(1), {"prompt": ["가"] * 17}),
        (COMPLETIONS, said(1), {"prompt": {}}),
        (COMPLETIONS, said(1), {}),
        ("/v1/embeddings", said(1), {"input": "가"}),
    ],
)
async def test_nobody_can_say(path: str, script: Script, fields: dict[str, Any]) -> None:
    assert (await counted(path, script, **fields))[0] is None


async def test_other_engines_are_not_asked() -> None:
    other = Replica("a", "m", "http://a", Engine.OTHER)
    assert await counted(CHAT, said(1), replica=other, messages=[]) == (None, [])
