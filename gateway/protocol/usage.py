"""The engine's own token counts in its answers: reading them, and cutting out those that the client did not ask for.

The gateway asks every stream for `include_usage` and `continuous_usage_stats` (see `gateway.protocol.openai`). What that adds
to vLLM's chunks, as its 0.29 sources have it:

- every chunk carries `"usage":{…}` behind its choices, counting that chunk's own choice only;
- one more chunk with `"choices":[]` and the totals comes before `[DONE]`;
- `system_fingerprint` moves from the chunk with the finish reason to that last one.

`UsageCutter` undoes exactly that. It works on bytes: a key's quotes are never escaped and a string's always are, so
`,"usage":{` cannot stand inside a text. Only what does not look as expected is decoded: counts written with spaces, for one, as
servers do that use Python's json module.
"""

from __future__ import annotations

import re

import msgspec

from gateway.protocol.openai import UsageWish
from gateway.protocol.sse import DATA, DONE


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


class _Choice(msgspec.Struct, frozen=True):
    index: int = 0


class _Body(msgspec.Struct, frozen=True):
    usage: Usage | None = None
    choices: tuple[_Choice, ...] = ()


_usages = msgspec.json.Decoder(Usage)
_bodies = msgspec.json.Decoder(_Body)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])

_KEY = b',"usage":{'
_NO_CHOICES = b'"choices":[]'
_NAME = b'"usage"'
_UNEXPECTED_KEY = re.compile(rb'"usage"\s*:\s*\{')
_FINISHED = b'"finish_reason":"'
_FINGERPRINT = b',"system_fingerprint":"'


def of_body(body: bytes) -> Usage:
    """The counts in a whole JSON answer, or none of them if it has none."""
    try:
        return _bodies.decode(body).usage or NO_USAGE
    except msgspec.DecodeError:
        return NO_USAGE


class UsageMeter:
    """Remembers the counts of the chunks shown to it, decoding as few of them as possible.

    With one choice the last chunk's counts are the call's. With several, each chunk counts its own choice, so the call's are
    the sum over the choices of each one's last; the totals at the end say it all again. `n` is the number of choices a
    prompt, which share that prompt.
    """

    def __init__(self, *, single_choice: bool, n: int = 1) -> None:
        self._single_choice = single_choice
        self._n = n
        self._last = b""
        self._by_choice: dict[int, Usage] = {}
        self._totals: Usage | None = None

    def saw(self, event: bytes) -> None:
        if self._single_choice:
            if _KEY in event or _is_unexpected(event):
                self._last = event
            return
        if not event.startswith(DATA) or event == DONE:
            return
        try:
            body = _bodies.decode(event[len(DATA) :])
        except msgspec.DecodeError:
            return
        if body.usage is not None:
            if not body.choices:
                self._totals = body.usage
            for choice in body.choices:
                self._by_choice[choice.index] = body.usage

    def usage(self) -> Usage:
        """The counts of all that was seen."""
        if self._single_choice:
            return of_body(self._last[len(DATA) :]) if self._last else NO_USAGE
        if self._totals is not None:
            return self._totals
        prompts = {index // self._n: usage.prompt_tokens for index, usage in self._by_choice.items()}
        return Usage(
            prompt_tokens=sum(prompts.values()),
            completion_tokens=sum(usage.completion_tokens or 0 for usage in self._by_choice.values()),
        )


class UsageCutter:
    """Turns the engine's events into those that it would have sent had the gateway asked for nothing.

    The one event with the finish reason waits for the next one, because it gets the fingerprint back. With several choices
    it does not wait (another choice's chunks would be held up), and the fingerprint is lost with the totals.
    """

    def __init__(self, wish: UsageWish, *, single_choice: bool) -> None:
        self._wish = wish
        self._single_choice = single_choice
        self._held: bytes | None = None

    def cut(self, event: bytes) -> list[bytes]:
        """What the client gets for this event: nothing, the event, or a held one before it."""
        if self._wish is UsageWish.EVERY_CHUNK:
            return [event]
        if self._wish is UsageWish.FINAL:
            return [event if _is_totals(event) else _without_usage(event)]
        if _is_totals(event):
            return self._release(_fingerprint(event))
        out = self._release(b"")
        event = _without_usage(event, keep_gap=True)
        if self._single_choice and _FINISHED in event:
            self._held = event
        else:
            out.append(event.replace(_GAP, b"", 1))
        return out

    def rest(self) -> list[bytes]:
        """What is still held when the engine's stream ends early."""
        return self._release(b"")

    def _release(self, fingerprint: bytes) -> list[bytes]:
        held, self._held = self._held, None
        return [] if held is None else [held.replace(_GAP, fingerprint, 1)]


_GAP = b"\x00"  # no JSON text holds this byte unescaped, so it can mark where something was cut out


def _is_unexpected(event: bytes) -> bool:
    """Whether it has counts that do not begin with `_KEY`."""
    return _NAME in event and _KEY not in event and _UNEXPECTED_KEY.search(event) is not None


def _is_totals(event: bytes) -> bool:
    """Whether it is the extra chunk that carries nothing but the totals."""
    if not _is_unexpected(event):
        return _NO_CHOICES in event and _KEY in event
    try:
        return not _bodies.decode(event.removeprefix(DATA)).choices
    except msgspec.DecodeError:
        return False


def _without_usage(event: bytes, *, keep_gap: bool = False) -> bytes:
    begin = event.rfind(_KEY)
    if begin < 0:
        return _without_usage_slowly(event) if _is_unexpected(event) else event
    end = _closing_brace(event, begin + len(_KEY) - 1)
    try:
        _usages.decode(event[begin + len(_KEY) - 1 : end])
    except msgspec.DecodeError:
        return _without_usage_slowly(event)
    return event[:begin] + (_GAP if keep_gap else b"") + event[end:]


def _closing_brace(event: bytes, opening: int) -> int:
    """Index just behind the brace that closes the one at `opening`, for objects without strings that hold braces."""
    depth, at = 0, opening
    while True:
        closing = event.find(b"}", at)
        if closing < 0:
            return len(event)
        depth += event.count(b"{", at, closing) - 1
        at = closing + 1
        if depth == 0:
            return at


def _without_usage_slowly(event: bytes) -> bytes:
    if not event.startswith(DATA):
        return event
    try:
        fields = _fields.decode(event[len(DATA) :])
    except msgspec.DecodeError:
        return event
    fields.pop("usage", None)
    return DATA + msgspec.json.encode(fields) + b"\n\n"


def _fingerprint(totals: bytes) -> bytes:
    begin = totals.find(_FINGERPRINT)
    if begin < 0:
        return b""
    return totals[begin : totals.index(b'"', begin + len(_FINGERPRINT)) + 1]
