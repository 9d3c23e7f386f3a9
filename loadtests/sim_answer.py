"""The simulated engine's answers, framed for HTTP and written as vLLM 0.29 writes them. Bytes only, and few steps for each chunk.

What it says is filler: Korean words, one a token, in a fixed order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from loadtests.sim_request import WORD_IDS, Asked

FINGERPRINT = "vllm-0.29.0-simulated"
WORDS = (
    "대문",
    "은 ",
    "한국어 ",
    "모델",
    "을 ",
    "여럿이 ",
    "나누어 ",
    "쓰게 ",
    "하는 ",
    "문이",
    "다. ",
    "기다린 ",
    "차례",
    "대로 ",
    "답합니",
    "다. ",
)
_CREATED = 1750000000
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}


def response(payload: bytes, status: int = 200, content_type: str = "application/json") -> bytes:
    """A whole answer with a length."""
    head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nserver: uvicorn\r\n"
    return f"{head}content-length: {len(payload)}\r\ncontent-type: {content_type}\r\n\r\n".encode() + payload


def json_response(value: object, status: int = 200) -> bytes:
    return response(_dump(value), status)


def error(message: str, status: int, param: str | None = None) -> bytes:
    kind = "NotFoundError" if status == 404 else "BadRequestError"
    return json_response({"error": {"message": message, "type": kind, "param": param, "code": status}}, status)


def text_of(first: int, count: int) -> str:
    """So many words of an answer, from its `first` on."""
    return "".join(WORDS[number % len(WORDS)] for number in range(first, first + count))


def whole(asked: Asked, call_id: str, model: str) -> bytes:
    """The answer to a call that does not stream."""
    text = text_of(asked.first_word, asked.output_tokens)
    ids = {"token_ids": _ids(asked.first_word, asked.output_tokens) if asked.token_ids else None}
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": asked.finish, "stop_reason": None}
    prompt_ids = {"prompt_token_ids": list(range(asked.prompt_tokens)) if asked.token_ids else None}
    if asked.chat:
        choice |= {"message": {"role": "assistant", "content": text}} | ids
        kind, more = "chat.completion", prompt_ids
    else:
        choice |= {"text": text} | prompt_ids | ids
        kind, more = "text_completion", {}
    total = asked.prompt_tokens + asked.output_tokens
    usage = {"prompt_tokens": asked.prompt_tokens, "total_tokens": total, "completion_tokens": asked.output_tokens}
    head = {"id": call_id, "object": kind, "created": _CREATED, "model": model}
    return json_response({**head, "choices": [choice], "system_fingerprint": FINGERPRINT, "usage": usage, **more})


class StreamWriter:
    """One call's stream: `begin`, then `more` for the tokens that have come, the last of them with `last`."""

    def __init__(self, asked: Asked, call_id: str, model: str) -> None:
        self._asked = asked
        self._sent = 0
        kind = "chat.completion.chunk" if asked.chat else "text_completion"
        head = {"id": call_id, "object": kind, "created": _CREATED, "model": model}
        self._head = _dump(head)[:-1]
        self._before_text = b"data: %b,%b" % (
            self._head,
            b'"choices":[{"index":0,"delta":{"content":"' if asked.chat else b'"choices":[{"index":0,"text":"',
        )

    @property
    def sent(self) -> int:
        return self._sent

    def begin(self) -> bytes:
        """The answer's head, and of a chat the event that says who speaks. vLLM writes them with the first token."""
        asked = self._asked
        if not asked.chat:
            return _STREAM_HEAD
        delta = {"role": "assistant", "content": ""}
        fields: dict[str, Any] = {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]}
        if asked.usage_on_each:
            fields["usage"] = self._usage(0)
        fields["prompt_token_ids"] = list(range(asked.prompt_tokens)) if asked.token_ids else None
        fields["prompt_text"] = None
        return _STREAM_HEAD + self._event(fields)

    def more(self, tokens: int, *, last: bool = False) -> bytes:
        """The chunk that brings the answer to so many tokens; with the last one all that ends the stream."""
        first, count = self._asked.first_word + self._sent, tokens - self._sent
        opening = self._sent == 0
        self._sent = tokens
        text = text_of(first, count).encode()
        finish = b'"%b"' % self._asked.finish.encode() if last else b"null"
        event = b"%b%b%b%b}\n\n" % (self._before_text, text, self._after_text(finish, first, count, opening), self._tail(last))
        framed = b"%x\r\n%b\r\n" % (len(event), event)
        return framed + self._end() if last else framed

    def _after_text(self, finish: bytes, first: int, count: int, opening: bool) -> bytes:
        asked = self._asked
        ids = _dump(_ids(first, count)) if asked.token_ids else b"null"
        if asked.chat:
            stop = b"" if finish == b"null" else b',"stop_reason":null'
            return b'"},"logprobs":null,"finish_reason":%b%b,"token_ids":%b}]' % (finish, stop, ids)
        prompt = _dump(list(range(asked.prompt_tokens))) if opening and asked.token_ids else b"null"
        head = b'","logprobs":null,"finish_reason":%b,"stop_reason":null' % finish
        return head + b',"prompt_token_ids":%b,"token_ids":%b}]' % (prompt, ids)

    def _tail(self, last: bool) -> bytes:
        asked = self._asked
        if asked.usage_on_each:
            details = b',"completion_tokens_details":null' if asked.chat else b""
            counts = (asked.prompt_tokens, asked.prompt_tokens + self._sent, self._sent, details)
            return b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d%b}' % counts
        return b',"system_fingerprint":"%b"' % FINGERPRINT.encode() if last and not asked.usage_at_end else b""

    def _end(self) -> bytes:
        done = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
        if not self._asked.usage_at_end:
            return done
        usage = {name: count for name, count in self._usage(self._sent).items() if count is not None}
        return self._event({"choices": [], "usage": usage, "system_fingerprint": FINGERPRINT}) + done

    def _usage(self, completion_tokens: int) -> dict[str, int | None]:
        prompt = self._asked.prompt_tokens
        total = prompt + completion_tokens
        usage: dict[str, int | None] = {"prompt_tokens": prompt, "total_tokens": total, "completion_tokens": completion_tokens}
        return usage | {"completion_tokens_details": None} if self._asked.chat else usage

    def _event(self, fields: Mapping[str, Any]) -> bytes:
        event = b"data: %b,%b\n\n" % (self._head, _dump(fields)[1:])
        return b"%x\r\n%b\r\n" % (len(event), event)


def _ids(first: int, count: int) -> list[int]:
    return list(range(WORD_IDS + first, WORD_IDS + first + count))


def _dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
