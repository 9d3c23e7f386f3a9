"""Token counts as engines tell them, as types. Who reads them is `gateway.protocol.counts`, and of chunks `.stream_reader`."""

from __future__ import annotations

from typing import ClassVar

import msgspec


class PromptDetails(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class CompletionDetails(msgspec.Struct, frozen=True):
    reasoning_tokens: int | None = None


class Usage(msgspec.Struct, frozen=True):
    """Token counts of one call, as the engine counted them."""

    estimated: ClassVar[bool] = False

    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None

    @property
    def cached_tokens(self) -> int:
        return (self.prompt_tokens_details.cached_tokens or 0) if self.prompt_tokens_details else 0

    @property
    def reasoning_tokens(self) -> int:
        """Of the completion's. vLLM's chat completions and responses tell them where it runs a reasoning parser."""
        return (self.completion_tokens_details.reasoning_tokens or 0) if self.completion_tokens_details else 0


class Estimate(Usage, frozen=True):
    """Counts that are ours, since the engine has told none, or none yet."""

    estimated: ClassVar[bool] = True


NO_USAGE = Usage()


class InputDetails(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class OutputDetails(msgspec.Struct, frozen=True):
    reasoning_tokens: int | None = None


class Counts(msgspec.Struct, frozen=True):
    """Responses' and messages' own. `input_tokens` has the cached ones in it in responses, and has not in messages."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: InputDetails | None = None
    output_tokens_details: OutputDetails | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None

    def usage(self) -> Usage:
        read = self.cache_read_input_tokens or 0
        cached = read or (self.input_tokens_details and self.input_tokens_details.cached_tokens) or None
        prompt = (self.input_tokens or 0) + read + (self.cache_creation_input_tokens or 0)
        thought = (self.output_tokens_details and self.output_tokens_details.reasoning_tokens) or None
        return Usage(prompt, self.output_tokens or 0, cached and PromptDetails(cached), thought and CompletionDetails(thought))


class Carrier(msgspec.Struct, frozen=True):
    """Anything with counts in it: a whole answer, or a `message_delta`."""

    usage: Counts | None = None


class Event(msgspec.Struct, frozen=True):
    """An event around an answer: `message_start`, or `response.completed`."""

    message: Carrier | None = None
    response: Carrier | None = None
    usage: Counts | None = None

    def counts(self) -> Counts | None:
        carrier = self.message or self.response
        return carrier.usage if carrier else self.usage


class _Body(msgspec.Struct, frozen=True):
    usage: Usage | None = None


_bodies = msgspec.json.Decoder(_Body)
usages = msgspec.json.Decoder(Usage)
carriers = msgspec.json.Decoder(Carrier)
events = msgspec.json.Decoder(Event)


def usage_of(body: bytes) -> Usage:
    """The counts in a whole JSON answer, or none of them if it has none."""
    try:
        return _bodies.decode(body).usage or NO_USAGE
    except msgspec.DecodeError:
        return NO_USAGE
