"""The requests that every gateway gets, the same bytes for all of them."""

from __future__ import annotations

import json

from benchmarks.gateway.answers import MODEL

PATH = "/v1/chat/completions"
_SYSTEM = "당신은 한국어로 짧고 정확하게 답하는 도우미입니다. 모르는 것은 모른다고 말합니다."


def short_call() -> bytes:
    """A call of some 300 bytes that does not stream."""
    return _body("대문은 무엇을 하는 프로그램인가요?", max_tokens=16)


def streaming_call(chunks: int, every_ms: int) -> bytes:
    """A call that the scripted engine answers with so many chunks, so far apart (`answers.read`)."""
    return _body(f"한 조각을 every {every_ms} ms 보내 주세요.", max_tokens=chunks, stream=True)


def http(host: str, key: str, body: bytes) -> bytes:
    """The whole HTTP request for a keep-alive connection."""
    head = f"POST {PATH} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n%s" % (len(body), body)


def _body(question: str, **fields: object) -> bytes:
    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": question}]
    return json.dumps({"model": MODEL, "messages": messages, **fields}, ensure_ascii=False, separators=(",", ":")).encode()
