"""What a request asks of the simulated engine: sizes, not words. Bytes in, `Asked` out; no I/O.

Text counts a token for every two characters, and some for each message, which is about what Korean costs. How long an answer
becomes of itself is said in the prompt ("… 120 tokens", "… 120토큰") or follows from its text: the same prompt, the same length.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import msgspec

CHARACTERS_PER_TOKEN = 2
MESSAGE_TOKENS = 4
WORD_IDS = 1000  # the id of an answer's first word; the next ones follow
_OWN_MEDIAN, _OWN_SIGMA, _OWN_MOST = 5.0, 0.6, 1024  # of the logarithm: 148 tokens
_LENGTH = re.compile(r"(\d{1,6})\s*(?:tokens|토큰)")


class BadRequest(Exception):
    """The request cannot be answered; the message says why, as vLLM's would."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class UnknownModel(Exception):
    """The request names a model that this engine has not."""


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False
    continuous_usage_stats: bool = False


class _Message(msgspec.Struct):
    content: str | list[dict[str, Any]] | None = None


class _Body(msgspec.Struct):
    model: str | None = None
    messages: list[_Message] | None = None
    prompt: str | list[int | str] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    return_token_ids: bool | None = None
    ignore_eos: bool = False


_decoder = msgspec.json.Decoder(_Body)


@dataclass(frozen=True, slots=True)
class Asked:
    """`first_word` is where the answer's words begin: behind those of the prompt, where it ends with an answer's beginning."""

    chat: bool
    prompt_tokens: int
    output_tokens: int
    finish: str
    stream: bool
    usage_at_end: bool
    usage_on_each: bool
    token_ids: bool
    first_word: int


def read(body: bytes, *, chat: bool, model: str, longest: int) -> Asked:
    """`longest` is the model's context in tokens. Raises BadRequest, UnknownModel."""
    asked = _decode(body)
    if asked.model not in (model, None):
        raise UnknownModel(f"The model `{asked.model}` does not exist.")
    if asked.n not in (1, None):
        raise BadRequest("the simulated engine answers once: n must be 1", "n")
    prompt_tokens, text, last_id = _prompt(asked, chat)
    most = asked.max_completion_tokens or asked.max_tokens or longest - prompt_tokens
    if most < 1 or prompt_tokens + most > longest:
        raise BadRequest(
            f"This model's maximum context length is {longest} tokens. However, you requested {most} output tokens and your "
            f"prompt contains {prompt_tokens} input tokens.",
            "input_tokens",
        )
    own = most + 1 if asked.ignore_eos else own_length(text)
    options = asked.stream_options or _StreamOptions()
    return Asked(
        chat=chat,
        prompt_tokens=prompt_tokens,
        output_tokens=min(own, most),
        finish="stop" if own <= most else "length",
        stream=bool(asked.stream),
        usage_at_end=options.include_usage,
        usage_on_each=options.include_usage and options.continuous_usage_stats,
        token_ids=bool(asked.return_token_ids),
        first_word=max(0, last_id - WORD_IDS + 1),
    )


def count(body: bytes) -> int:
    """The tokens of what /tokenize is asked. Raises BadRequest."""
    asked = _decode(body)
    return _prompt(asked, chat=asked.messages is not None)[0]


def tokens_of(text: str) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def own_length(text: str) -> int:
    """How long the answer to this prompt becomes if nothing cuts it off."""
    if said := _LENGTH.findall(text):
        return max(1, int(said[-1]))
    drawn = random.Random(crc32(text.encode())).lognormvariate(_OWN_MEDIAN, _OWN_SIGMA)  # noqa: S311 - a seed is wanted
    return max(1, min(round(drawn), _OWN_MOST))


def _decode(body: bytes) -> _Body:
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise BadRequest(str(problem)) from problem


def _prompt(asked: _Body, chat: bool) -> tuple[int, str, int]:
    """Its tokens, its text, and its last id where it is made of ids (else 0)."""
    if chat:
        if not asked.messages:
            raise BadRequest("messages must be a list with at least one message", "messages")
        text = "\n".join(map(_text, asked.messages))
        return tokens_of(text) + MESSAGE_TOKENS * len(asked.messages), text, 0
    match asked.prompt:
        case str(text) if text:
            return tokens_of(text), text, 0
        case [str(text)] if text:
            return tokens_of(text), text, 0
        case [*ids] if ids and all(isinstance(one, int) for one in ids):
            return len(ids), str(ids[:64]), int(ids[-1])
    raise BadRequest("the simulated engine takes one prompt, as text or as token ids", "prompt")


def _text(message: _Message) -> str:
    if isinstance(message.content, list):
        return "".join(str(part.get("text", "")) for part in message.content)
    return message.content or ""
