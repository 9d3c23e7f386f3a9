"""What the scripted engine says, byte for byte as vLLM 0.29 writes it, framed for HTTP; made once for each kind of request.

Not a model of everything that vLLM can say (`tests/vllm_stream.py` is): one choice, the same words, usage and token ids as asked.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

MODEL = "bench"
ID = "chatcmpl-9f3c2b7a61d84e05"
PROMPT_TOKENS = 12
_WORDS = ("대문", "은 ", "한국어 ", "모델", "을 ", "여럿이 ", "나누어 ", "쓰게 ")
_FINGERPRINT = "vllm-0.29.0-tp1-3f2a9c"

# Fields that every gateway passes on: `max_tokens` says how many chunks, the prompt's own text how far apart they are.
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_CHUNKS = re.compile(rb'"max_(?:completion_)?tokens"\s*:\s*(\d+)')
_EVERY = re.compile(rb"every (\d+) ms")
_FINAL = re.compile(rb'"include_usage"\s*:\s*true')
_CONTINUOUS = re.compile(rb'"continuous_usage_stats"\s*:\s*true')
_IDS = re.compile(rb'"return_token_ids"\s*:\s*true')


@dataclass(frozen=True, slots=True)
class Asked:
    """What a streaming request's body asks for. `every_ms` is the time before each chunk."""

    chunks: int = 16
    every_ms: int = 10
    usage_at_end: bool = False
    usage_on_each: bool = False
    token_ids: bool = False


def read(body: bytes) -> Asked | None:
    """None means that no stream is wanted. The body is searched, not parsed: the engine must be the cheapest part."""
    if not _STREAM.search(body):
        return None
    chunks, every = _CHUNKS.search(body), _EVERY.search(body)
    at_end = _FINAL.search(body) is not None
    return Asked(
        chunks=max(1, int(chunks[1])) if chunks else 16,
        every_ms=max(1, int(every[1])) if every else 10,
        usage_at_end=at_end,
        usage_on_each=at_end and _CONTINUOUS.search(body) is not None,
        token_ids=_IDS.search(body) is not None,
    )


def response(payload: bytes, *, status: str = "200 OK", content_type: str = "application/json") -> bytes:
    """A whole HTTP answer with a length."""
    head = f"HTTP/1.1 {status}\r\nserver: uvicorn\r\ncontent-length: {len(payload)}\r\ncontent-type: {content_type}\r\n\r\n"
    return head.encode() + payload


def completion() -> bytes:
    """The answer to a call that does not stream: some 300 bytes."""
    message = {"role": "assistant", "content": "여럿이 나누어 씁니다."}
    return _dump(
        {
            "id": ID,
            "object": "chat.completion",
            "created": 1750000000,
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS + 16, "completion_tokens": 16},
        }
    )


def models() -> bytes:
    return _dump({"object": "list", "data": [{"id": MODEL, "object": "model", "created": 1750000000, "owned_by": "vllm"}]})


def word(number: int) -> str:
    """What chunk `number` says; the first one, number 0, says nothing."""
    return _WORDS[number % len(_WORDS)]


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)


@lru_cache(maxsize=256)
def frames(asked: Asked) -> tuple[bytes, ...]:
    """The stream as HTTP chunks, one for each of `asked.chunks` events; the last also carries all that follows without a wait."""
    events = [_event(asked, number) for number in range(asked.chunks)]
    tail = [_totals(asked)] if asked.usage_at_end else []
    tail.append(b"data: [DONE]\n\n")
    framed = [b"%x\r\n%s\r\n" % (len(event), event) for event in (*events, *tail)]
    return (*framed[: asked.chunks - 1], b"".join(framed[asked.chunks - 1 :]) + b"0\r\n\r\n")


def _event(asked: Asked, number: int) -> bytes:
    """The first says who speaks, the others a word each; the last one says why it ends."""
    last = number == asked.chunks - 1
    choice: dict[str, Any] = {"index": 0, "delta": {"content": word(number)}, "logprobs": None}
    choice["finish_reason"] = "length" if last else None
    if number == 0:
        choice["delta"] = {"role": "assistant", "content": ""}
    else:
        choice |= ({"stop_reason": None} if last else {}) | {"token_ids": [1000 + number] if asked.token_ids else None}
    chunk = _chunk([choice])
    if asked.usage_on_each:
        chunk["usage"] = _usage(number)
    if number == 0:
        chunk |= {"prompt_token_ids": list(range(PROMPT_TOKENS)) if asked.token_ids else None, "prompt_text": None}
    if last and not asked.usage_at_end:
        chunk["system_fingerprint"] = _FINGERPRINT
    return b"data: " + _dump(chunk) + b"\n\n"


def _totals(asked: Asked) -> bytes:
    usage = {name: count for name, count in _usage(asked.chunks - 1).items() if count is not None}
    return b"data: " + _dump(_chunk([]) | {"usage": usage, "system_fingerprint": _FINGERPRINT}) + b"\n\n"


def _chunk(choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": ID,
        "object": "chat.completion.chunk",
        "created": 1750000000,
        "model": MODEL,
        "choices": choices,
    }


def _usage(completion_tokens: int) -> dict[str, int | None]:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "total_tokens": PROMPT_TOKENS + completion_tokens,
        "completion_tokens": completion_tokens,
        "completion_tokens_details": None,
    }


def _dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
