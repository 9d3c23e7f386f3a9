"""Which calls are of one conversation."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.protocol import conversation, openai
from gateway.protocol.endpoint import CHAT, COMPLETIONS, ENDPOINTS, Api, Endpoint

RESPONSES, MESSAGES, EMBEDDINGS = (
    next(one for one in ENDPOINTS if one.api is api) for api in (Api.RESPONSES, Api.MESSAGES, Api.EMBEDDINGS)
)
HI = {"role": "user", "content": "안녕하세요"}
BYE = {"role": "user", "content": "안녕히 계세요"}
REPLY = {"role": "assistant", "content": "네"}


def of(name: str, *value: Any) -> dict[str, Any]:
    return {name: [*value]}


def caller(endpoint: Endpoint = CHAT, key_id: str = "key_1", **fields: Any) -> bytes:
    body = json.dumps({"model": "old", "max_tokens": 9, **fields}).encode()
    return conversation.caller(key_id, openai.read(body, endpoint))


@pytest.mark.parametrize(
    ("endpoint", "turns"),
    [(CHAT, "messages"), (MESSAGES, "messages"), (RESPONSES, "input")],
    ids=["chat", "messages", "responses"],
)
def test_every_turn_of_a_conversation_is_of_one_caller(endpoint: Endpoint, turns: str) -> None:
    first = caller(endpoint, **of(turns, HI))
    assert caller(endpoint, **of(turns, HI, REPLY, BYE)) == first
    assert caller(endpoint, **of(turns, BYE)) != first
    assert caller(endpoint, "key_2", **of(turns, HI)) != first


def test_what_stands_before_the_users_first_turn_does_not_count() -> None:
    at_nine, at_ten = ({"role": "system", "content": f"It is {hour} o'clock."} for hour in (9, 10))
    assert caller(messages=[at_nine, HI]) == caller(messages=[at_ten, HI, REPLY, BYE]) == caller(messages=[HI])


@pytest.mark.parametrize("name", ["user", "safety_identifier", "prompt_cache_key"])
def test_users_whom_the_client_tells_apart_are_apart(name: str) -> None:
    assert caller(messages=[HI], **of(name, "a")) != caller(messages=[HI], **of(name, "b"))


def test_texts_are_known_by_their_beginning() -> None:
    text = "대문은 " * 100
    assert caller(COMPLETIONS, prompt=text) == caller(COMPLETIONS, prompt=text + "열린다")
    assert caller(COMPLETIONS, prompt="a") != caller(COMPLETIONS, prompt="b")
    assert caller(RESPONSES, input="a") != caller(RESPONSES, input="b")
    assert caller(EMBEDDINGS, input=["a"]) != caller(EMBEDDINGS, input=["b"])


@pytest.mark.parametrize("messages", [[], [REPLY], None])
def test_conversation_without_a_user_is_somebodys_too(messages: Any) -> None:
    assert caller(messages=messages) == caller(messages=messages)


@pytest.mark.parametrize(("store", "keeps"), [(True, True), (False, False), (None, False)])
def test_whether_the_answer_is_to_be_kept(store: bool | None, keeps: bool) -> None:
    body = json.dumps({"model": "old", "messages": [], "store": store}).encode()
    assert conversation.keeps_its_answer(openai.read(body, CHAT)) is keeps
    assert not conversation.keeps_its_answer(openai.read(b'{"model":"old","messages":[]}', CHAT))
