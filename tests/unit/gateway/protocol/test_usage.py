"""Counts of whole answers."""

from __future__ import annotations

from gateway.protocol.usage import NO_USAGE, of_body


def test_whole_answers_are_counted_or_not_at_all() -> None:
    body = b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":1}}}'
    assert (of_body(body).prompt_tokens, of_body(body).completion_tokens, of_body(body).cached_tokens) == (3, 2, 1)
    assert of_body(b'{"choices":[]}') == NO_USAGE
    assert of_body(b"<html>") == NO_USAGE
