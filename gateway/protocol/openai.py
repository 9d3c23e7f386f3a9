"""The little of an OpenAI request that the gateway reads, and the one thing that it writes into it.

Everything else in the body passes as the client's own bytes: fields are kept as raw JSON, never decoded and encoded again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import msgspec

from gateway.errors import InvalidField, MalformedJson


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class Head(msgspec.Struct, frozen=True):
    """What decisions need to know. Unknown fields are not looked at."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    prompt: msgspec.Raw = msgspec.Raw(b"null")


class UsageWish(Enum):
    """How much of the engine's counting the client asked to see in its stream."""

    NONE = 0
    FINAL = 1
    EVERY_CHUNK = 2


@dataclass(frozen=True, slots=True)
class Request:
    """A request as read: what was asked for, and the body that the engine gets."""

    model: str
    stream: bool
    wish: UsageWish
    n: int
    single_choice: bool
    body: bytes


_heads = msgspec.json.Decoder(Head)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_prompts = msgspec.json.Decoder(list[msgspec.Raw])
_COUNT_EVERYTHING = msgspec.Raw(b'{"include_usage":true,"continuous_usage_stats":true}')


def read(body: bytes) -> Request:
    """Read a chat or completion request.

    A streaming request's body asks the engine for its counts on every chunk, because that is how an aborted stream is
    accounted for to the token; `gateway.protocol.usage` cuts them out again where the client did not ask for them.

    Raises:
        MalformedJson: the body is no JSON object.
        InvalidField: a field that is read here has the wrong type or is missing; `param` names it.
    """
    try:
        head = _heads.decode(body)
    except msgspec.ValidationError as problem:
        raise _explain(problem) from problem
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise MalformedJson(detail=str(problem)) from problem
    stream = bool(head.stream)
    if stream:
        fields = _fields.decode(body)
        fields["stream_options"] = _stream_options(fields.get("stream_options"))
        body = msgspec.json.encode(fields)
    n = max(1, head.n or 1)
    return Request(
        model=head.model,
        stream=stream,
        wish=_wish(head.stream_options),
        n=n,
        single_choice=n == 1 and not _is_batch(head.prompt),
        body=body,
    )


def _wish(options: StreamOptions | None) -> UsageWish:
    if options is None or not options.include_usage:
        return UsageWish.NONE
    return UsageWish.EVERY_CHUNK if options.continuous_usage_stats else UsageWish.FINAL


def _stream_options(given: msgspec.Raw | None) -> msgspec.Raw:
    """The client's own options with the two counting ones turned on; options we do not know stay."""
    if given is None or bytes(given) == b"null":
        return _COUNT_EVERYTHING
    options = _fields.decode(given)
    options |= _fields.decode(_COUNT_EVERYTHING)
    return msgspec.Raw(msgspec.json.encode(options))


def _is_batch(prompt: msgspec.Raw) -> bool:
    """Whether a completion's `prompt` is a list of several prompts: of texts, or of lists of token ids."""
    raw = bytes(prompt)
    return raw[:1] == b"[" and raw[1:].lstrip()[:1] in (b'"', b"[") and len(_prompts.decode(raw)) > 1


def _explain(problem: msgspec.ValidationError) -> MalformedJson | InvalidField:
    """msgspec says `Expected `str`, got `int` - at `$.model``, or `Object missing required field `model``."""
    detail, _, path = str(problem).partition(" - at `$")
    param = path.rstrip("`").lstrip(".")
    if "missing required field" in detail:
        missing = detail.split("`")[1]
        return InvalidField(param=".".join(filter(None, (param, missing))), detail="it is required")
    if not param:
        return MalformedJson(detail=detail.replace("`", ""))
    return InvalidField(param=param, detail=detail.replace("`", "").lower())
