"""What engines say of bad requests, as vLLM 0.29 was seen to say it, and what the client gets to know."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.refusal import MOST_BYTES, Refusal, read
from tests.strategies import texts

MISSING = "{'type': 'missing', 'loc': ('body', 'input'), 'msg': 'Field required', 'input': {'model': 'm'}}"
UNION = "{'type': 'x', 'loc': ('body', 'messages', 3, 'list[union[A,B]]', 'content'), 'msg': 'Field required', 'input': {}}"
QUOTED = (
    """{'type': 'value_error', 'loc': ('body', 'tool_choice'), 'msg': "Value error, name is required for 'tool'", 'input': 1}"""
)


def openai_body(message: str, param: str | None = None) -> bytes:
    return json.dumps(
        {"error": {"message": message, "type": "Bad Request", "param": param, "code": 400}}, ensure_ascii=False
    ).encode()


def anthropic_body(message: str) -> bytes:
    return json.dumps({"type": "error", "error": {"type": "BadRequestError", "message": message}}).encode()


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        (openai_body("temperature must be in [0, 2].", "temperature"), Refusal("temperature must be in [0, 2].", "temperature")),
        (
            openai_body("temperature must be in [0, 2], got 9.0. (parameter=temperature, value=9.0)", "temperature"),
            Refusal("temperature must be in [0, 2], got 9.0.", "temperature"),
        ),
        (
            anthropic_body("Too many tokens. (parameter=max_completion_tokens, value=(5))"),
            Refusal("Too many tokens.", "max_completion_tokens"),
        ),
        (anthropic_body("Input length (9)\nexceeds 5."), Refusal("Input length (9) exceeds 5.")),
        (openai_body(f"1 validation error:\n  {MISSING}", "body.input"), Refusal("input: Field required", "input")),
        (openai_body(f"2 validation errors:\n  {MISSING}\n  {UNION}"), Refusal("input: Field required", "input")),
        (openai_body(f"1 validation error:\n  {UNION}"), Refusal("messages.3.content: Field required", "messages.3.content")),
        (
            openai_body(f"1 validation error:\n  {UNION}", "body.messages.3.ChatMessageParam.content"),
            Refusal("messages.3.content: Field required", "messages.3.content"),
        ),
        (
            openai_body(f"1 validation error:\n  {QUOTED}", "body.tool_choice"),
            Refusal("tool_choice: Value error, name is required for 'tool'", "tool_choice"),
        ),
        (b'{"detail":"There was an error parsing the body"}', Refusal("There was an error parsing the body")),
        *((nonsense, Refusal()) for nonsense in (b"", b"<html>", b"{}", b"[]", b'{"error":{"message":7}}')),
        (b'{"error":"x"}', Refusal("x")),
    ],
)
def test_what_engines_say(body: bytes, refusal: Refusal) -> None:
    assert read(body) == refusal


@given(st.integers(400, 700))
def test_report_that_is_cut_off_is_understood_from_its_beginning(cut: int) -> None:
    report = openai_body("9 validation errors:\n  " + UNION + (QUOTED + "\\ 대문 😀\n") * 9, "body.messages")
    assert read(report[:cut]) == Refusal("messages.3.content: Field required", "messages.3.content")


@given(st.binary(max_size=60) | st.tuples(texts, st.none() | texts).map(lambda said: openai_body(*said)), st.integers(0, 200))
def test_anything_is_read_as_something(body: bytes, cut: int) -> None:
    for said in (read(body), read(body[:cut])):
        assert len(said.message) <= 1000
        assert "\n" not in said.message


def test_long_texts_are_shortened_quickly() -> None:
    long_texts = [
        "9 validation errors:" + "x" * MOST_BYTES,
        "(parameter=" * 5000,
        "9 validation errors:" + "'loc': ()" * 7000,
        "/a" * 30_000,
    ]
    for text in long_texts:
        assert len(read(openai_body(text)).message) <= 1000
