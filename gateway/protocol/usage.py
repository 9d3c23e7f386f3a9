"""Token counts as OpenAI's API tells them in whole answers. Streams are `gateway.protocol.stream_reader`'s."""

from __future__ import annotations

import msgspec


class PromptDetails(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class Usage(msgspec.Struct, frozen=True):
    """Token counts of one call, as the engine counted them."""

    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: PromptDetails | None = None

    @property
    def cached_tokens(self) -> int:
        return (self.prompt_tokens_details.cached_tokens or 0) if self.prompt_tokens_details else 0


NO_USAGE = Usage()


class _Body(msgspec.Struct, frozen=True):
    usage: Usage | None = None


_bodies = msgspec.json.Decoder(_Body)


def of_body(body: bytes) -> Usage:
    """The counts in a whole JSON answer, or none of them if it has none."""
    try:
        return _bodies.decode(body).usage or NO_USAGE
    except msgspec.DecodeError:
        return NO_USAGE
