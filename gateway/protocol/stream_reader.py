"""One streamed call between engine and client: each event goes through `read`, which gives what the client gets for it.

The gateway asks the engine for more than the client did: counts on every chunk (an aborted stream is accounted for to the
token) and, where a `Recorder` (`gateway.protocol.recorder`) reads, token ids (a broken stream goes on elsewhere). What that
adds to vLLM's chunks, as its 0.29 sources have it:

- every chunk carries `"usage":{…}` behind its choices, counting that chunk's own choice only;
- one more chunk with `"choices":[]` and the totals comes before `[DONE]`;
- `system_fingerprint` moves from the chunk with the finish reason to that last one;
- `"token_ids":null` and, once, `"prompt_token_ids":null` become lists;
- a parser that has nothing to say about some tokens yet sends `"delta":{}` with their ids, instead of nothing.

A reader undoes exactly that, remembers the last counts, and for a `Recorder` the ids. The ordinary chunk is found by a few
searches on its bytes: a key's quotes are never escaped and a string's always are, so no key can stand inside a text. Whatever
does not look as expected is taken apart instead (`gateway.protocol.chunk`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from gateway.protocol import refusal
from gateway.protocol.chunk import NULL, Fields, choices_of, fields_of, is_null, to_event
from gateway.protocol.continuation import End, Send, Step
from gateway.protocol.openai import UsageWish
from gateway.protocol.sse import DATA, DONE, ENGINE_ERROR
from gateway.protocol.translation import CHOICES, Rerun, is_role
from gateway.protocol.usage import NO_USAGE, CompletionDetails, Usage, usage_of

_USAGE = b'],"usage":{'
_ANOTHER_FIELD = b'},"'
_UNFINISHED = b'"finish_reason":null'
_FIRST_INDEX = b'"choices":[{"index":'
CHUNK_END = b"}\n\n"
_TOTALS = -1


class Reader(Protocol):
    """Between an engine's stream and the client's, whatever the API.

    `ended` is that all of the answer was read, `broken` that the engine has said itself that it cannot go on.
    """

    ended: bool
    broken: bool

    @property
    def stopped(self) -> bool:
        """The client has all that it is to get, though the engine does not know it and goes on."""
        ...

    def read(self, event: bytes) -> bytes:
        """What the client gets for this event."""
        ...

    def rest(self) -> bytes:
        """What is still held when the engine's stream ends early."""
        ...

    def go_on(self, answer: bytes | None = None) -> Step | None:
        """After a break: what to do now; None if this stream cannot go on elsewhere."""
        ...

    def delivered(self) -> None:
        """The client has got all that was read so far."""
        ...

    def usage(self) -> Usage:
        """The counts of all that was delivered."""
        ...


class StreamReader:
    """For any stream of chunks. `n` is the number of choices a prompt, which share that prompt; `again` is the request.

    The one event with the finish reason waits for the next one, because it gets the fingerprint back. With several choices
    it does not wait (another choice's chunks would be held up), and the fingerprint is lost with the totals.
    """

    def __init__(self, wish: UsageWish, *, single_choice: bool = True, n: int = 1, again: Send | None = None) -> None:
        self.ended = False  # the engine's `[DONE]` was read
        self.broken = False  # the engine said itself that it cannot go on
        self._wish = wish
        self._single_choice = single_choice
        self._n = n
        self._again = again  # until something has been said
        self._opening = b""  # what all chunks of the stream begin with: `data: {"id":…,"model":…,`
        self._roles = 0
        self._translate: Callable[[bytes], list[bytes]] | None = None
        self._held: Fields | None = None
        self._last_words: list[bytes] = []  # of a broken engine
        self._read: dict[int, bytes] = {}  # by choice, the last event with counts
        self._delivered: dict[int, bytes] = {}

    def read(self, event: bytes) -> bytes:
        """What the client gets for this event: nothing, the event less what it did not ask for, or a held one before it."""
        if self._translate is None:
            return self._take(event)
        return b"".join([self._take(translated) for translated in self._translate(event)])

    @property
    def stopped(self) -> bool:
        """The stream was ended here and not by the engine, which generates on: leave it."""
        return False

    def go_on(self, answer: bytes | None = None) -> Step | None:
        """After a break: what to do now; None if this stream cannot go on, `rest` then has its end.

        What follows a `Send` is read like the stream so far. The answer to an `Ask` is given to the next call; a call without
        an answer begins anew. Until anything has been said, the same request is simply sent once more.
        """
        if self.ended:
            return End(b"")
        if self._again is None:
            return None
        self._translate = Rerun(self._opening, self._roles) if self._opening else None
        self._mend()
        return self._again

    def rest(self) -> bytes:
        """What is still held when the engine's stream is over, its last words included."""
        last_words, self._last_words = self._last_words, []
        self.broken = False
        out = b"".join([self._cut(event) for event in last_words])
        return out + self._release(NULL)

    def delivered(self) -> None:
        """The client has got all that was read so far."""
        self._delivered.update(self._read)

    def usage(self) -> Usage:
        """The counts of all that was delivered.

        With one choice the last chunk's counts are the call's. With several, each chunk counts its own choice, so the call's
        are the sum over the choices of each one's last; the totals at the end say it all again.
        """
        counts = {choice: usage_of(event[len(DATA) :]) for choice, event in self._delivered.items()}
        if self._single_choice:
            return counts.get(0, NO_USAGE)
        if _TOTALS in counts:
            return counts[_TOTALS]
        prompts = {choice // self._n: usage.prompt_tokens for choice, usage in counts.items()}
        thought = sum(usage.reasoning_tokens for usage in counts.values())
        return Usage(
            prompt_tokens=sum(prompts.values()),
            completion_tokens=sum(usage.completion_tokens or 0 for usage in counts.values()),
            completion_tokens_details=CompletionDetails(thought) if thought else None,
        )

    def _take(self, event: bytes) -> bytes:
        if self._again is not None:
            self._notice(event)
        at = event.rfind(_USAGE)
        if at < 0 or event.find(_ANOTHER_FIELD, at) >= 0 or event.rfind(_UNFINISHED, 0, at) < 0 or self._held is not None:
            return self._take_apart(event)
        self._read[0 if self._single_choice else _index(event)] = event
        return event if self._wish is UsageWish.EVERY_CHUNK else event[: at + 1] + CHUNK_END

    def _take_apart(self, event: bytes) -> bytes:
        if self.broken or refusal.is_engines_fault(event):
            self.broken = True
            self._last_words.append(event)
            return b""
        return self._cut(event)

    def _notice(self, event: bytes) -> None:
        """Nothing has been said so far."""
        if is_role(event):
            self._roles += 1
            self._opening = event[: event.find(CHOICES)]
        elif event.startswith(DATA) and event != DONE and not event.startswith(ENGINE_ERROR):
            self._again = None

    def _mend(self) -> None:
        self.broken = False
        self._last_words = []

    def _cut(self, event: bytes) -> bytes:
        fields = fields_of(event)
        if fields is None:
            self.ended = self.ended or event == DONE
            return self._release(NULL) + event
        return self._cut_usage(event, fields, choices_of(fields))

    def _cut_usage(self, event: bytes, fields: Fields, choices: list[Fields]) -> bytes:
        """The event as the client wants it; `fields` are its own, `choices` what they hold."""
        if bytes(fields.get("usage", NULL))[:1] != b"{":
            return self._release(NULL) + event
        self._read[0 if self._single_choice else _TOTALS if not choices else _index(event)] = event
        if self._wish is UsageWish.EVERY_CHUNK or (self._wish is UsageWish.FINAL and not choices):
            return event
        if not choices:
            return self._release(fields.get("system_fingerprint", NULL))
        out = self._release(NULL)
        finishes = not all(is_null(choice.get("finish_reason", NULL)) for choice in choices)
        if finishes and self._single_choice and self._wish is UsageWish.NONE:
            self._held = fields
            return out
        del fields["usage"]
        return out + to_event(fields)

    def _release(self, fingerprint: msgspec.Raw) -> bytes:
        """The held event, if any, with the fingerprint where its counts were."""
        fields, self._held = self._held, None
        if fields is None:
            return b""
        names = {"usage": "system_fingerprint"}
        fields["usage"] = fingerprint
        return to_event({names.get(name, name): value for name, value in fields.items() if name != "usage" or not is_null(value)})


def _index(event: bytes) -> int:
    """Which choice a chunk belongs to."""
    begin = event.find(_FIRST_INDEX) + len(_FIRST_INDEX)
    digits = event[begin : event.find(b",", begin)]
    return int(digits) if digits.isdigit() else 0
