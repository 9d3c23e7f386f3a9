"""The engine's token counts in the answers of all APIs: whole ones, and the streams of responses and messages.

The streams of chat and text completions, whose counts have to be asked for and cut out again, are `gateway.protocol.usage`'s.
These two carry their counts by themselves, so nothing is asked or cut, and only the events that have counts are decoded.

How exact a stream is that its client leaves in the middle, as vLLM 0.29 sends them:

- responses: exact once `response.completed` has come. Until then no event has a count. Each delta event counts as one token,
  which is at most what was generated: vLLM sends none for a token that completes no character (a Hangul syllable can take
  three), and one for several tokens when its event loop is behind. The prompt's tokens are not known.
- messages: the prompt is exact from the first event on, the whole once `message_delta` has come, deltas until then as above.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from gateway.protocol.endpoint import Api, Endpoint, Stream
from gateway.protocol.sse import DATA
from gateway.protocol.usage import NO_USAGE, Counts, Estimate, Usage, carriers, events, usage_of, usages


class Meter(Protocol):
    """Is shown all events of a stream in their order and tells the counts up to the last one shown."""

    def saw(self, event: bytes) -> None: ...

    def usage(self) -> Usage: ...


_USAGE = b'"usage":'
_OWN_COUNTS = frozenset({Api.RESPONSES, Api.MESSAGES})


def of_body(body: bytes, endpoint: Endpoint) -> Usage:
    """The counts in a whole JSON answer of that endpoint, or none of them if it has none."""
    if not endpoint.counted:
        return NO_USAGE
    if endpoint.api in _OWN_COUNTS:
        try:
            counts = carriers.decode(body).usage
        except msgspec.DecodeError:
            return NO_USAGE
        return counts.usage() if counts else NO_USAGE
    return _at_the_end(body) or usage_of(body)


def _at_the_end(body: bytes) -> Usage | None:
    """The counts where they are the last field, without decoding what is before: embeddings can be megabytes of numbers."""
    begin, end = body.rfind(_USAGE), body.rfind(b"}")
    if begin < 0:
        return None
    try:
        return usages.decode(body[begin + len(_USAGE) : end])
    except msgspec.DecodeError:
        return None


class ResponsesMeter:
    """Each `….delta` event is a token, until one of the events that end a response counts them all."""

    _ENDS = (b"event: response.completed\n", b"event: response.incomplete\n", b"event: response.failed\n")

    def __init__(self) -> None:
        self._deltas = 0
        self._final: bytes | None = None

    def saw(self, event: bytes) -> None:
        if event.startswith(b"event: response.") and event.endswith(b".delta", 0, event.find(b"\n")):
            self._deltas += 1
        elif event.startswith(self._ENDS):
            self._final = event

    def usage(self) -> Usage:
        counts = None if self._final is None else _counts_in(self._final)
        return counts.usage() if counts else Estimate(0, self._deltas)


class MessagesMeter:
    """`message_start` has the prompt's tokens, `message_delta` all; between them each `content_block_delta` is a token."""

    def __init__(self) -> None:
        self._deltas = 0
        self._start: bytes | None = None
        self._end: bytes | None = None

    def saw(self, event: bytes) -> None:
        if event.startswith(b"event: content_block_delta\n"):
            self._deltas += b'"type":"signature_delta"' not in event
        elif event.startswith(b"event: message_start\n"):
            self._start = event
        elif event.startswith(b"event: message_delta\n"):
            self._end = event

    def usage(self) -> Usage:
        start = (self._start and _counts_in(self._start)) or Counts()
        end = self._end and _counts_in(self._end)
        if not end:
            begun = start.usage()
            return Estimate(begun.prompt_tokens, self._deltas, begun.prompt_tokens_details)
        prompt = start if end.input_tokens is None else end  # Anthropic's own servers give it at the start alone
        return msgspec.structs.replace(prompt.usage(), completion_tokens=end.output_tokens or 0)


class PassingReader:
    """A `gateway.protocol.stream_reader.Reader` that passes every event as it is, and cannot go on elsewhere."""

    stopped = False

    def __init__(self, meter: Meter, stream: Stream) -> None:
        self.ended = False
        self.broken = False
        self._meter = meter
        self._stream = stream
        self._read: list[bytes] = []

    def read(self, event: bytes) -> bytes:
        self._read.append(event)
        self.ended = self.ended or event.startswith(self._stream.last)
        self.broken = self.broken or event.startswith(self._stream.failed)
        return event

    def go_on(self, answer: bytes | None = None) -> None:
        return None

    def rest(self) -> bytes:
        self.broken = False
        return b""

    def delivered(self) -> None:
        for event in self._read:
            self._meter.saw(event)
        self._read.clear()

    def usage(self) -> Usage:
        return self._meter.usage()


def meter(api: Api) -> Meter:
    """For a stream whose own events carry its counts."""
    return ResponsesMeter() if api is Api.RESPONSES else MessagesMeter()


def _counts_in(event: bytes) -> Counts | None:
    try:
        return events.decode(event[event.find(DATA) + len(DATA) :]).counts()
    except msgspec.DecodeError:
        return None
