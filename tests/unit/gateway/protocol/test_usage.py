"""Counts of whole answers."""

from __future__ import annotations

from gateway.protocol.usage import NO_USAGE, usage_of


def test_whole_answers_are_counted_or_not_at_all() -> None:
    body = b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":1}}}'
    assert (usage_of(body).prompt_tokens, usage_of(body).completion_tokens, usage_of(body).cached_tokens) == (3, 2, 1)
    assert usage_of(b'{"choices":[]}') == NO_USAGE
    assert usage_of(b"<html>") == NO_USAGE
