"""One streamed call between engine and client: each event goes through `read`, which gives what the client gets for it.

The gateway asks the engine for more than the client did: counts on every chunk (an aborted stream is accounted for to the
token) and, where `Recorder` reads, token ids (a broken stream goes on elsewhere). What that adds to vLLM's chunks, as its
0.29 sources have it:

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

from gateway.protocol.chunk import NULL, Fields, choices_of, fields_of, inner, is_null, text_of, to_event, to_raw
from gateway.protocol.continuation import End, Plan, Send, Step
from gateway.protocol.openai import UsageWish
from gateway.protocol.resumption import Resumption
from gateway.protocol.sse import DATA, DONE, ENGINE_ERROR
from gateway.protocol.stop_strings import StopMatcher
from gateway.protocol.translation import CHOICES, Continued, Rerun, counts_in, is_role
from gateway.protocol.usage import NO_USAGE, Usage, of_body

_USAGE = b'],"usage":{'
_ANOTHER_FIELD = b'},"'
_UNFINISHED = b'"finish_reason":null'
_FIRST_INDEX = b'"choices":[{"index":'
_CHUNK_END = b"}\n\n"
_TOTALS = -1

_CHAT_SPEECH = b'"choices":[{"index":0,"delta":{"content":"'
_TEXT_SPEECH = b'"choices":[{"index":0,"text":"'
_CHAT_BEFORE_IDS = b'"},"logprobs":null,"finish_reason":null,"token_ids":['
_TEXT_BEFORE_IDS = b'","logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":['
_BEHIND_IDS = b']}],"usage":{'
_ANOTHER_STRING = b'","'
_NEVER = b"\xff"  # begins no event
_ABORTED = b'"finish_reason":"abort"'  # what an engine that is told to stop says to those it leaves alone
_THOUGHTS = frozenset({"reasoning", "reasoning_content"})


class Reader(Protocol):
    """Between an engine's stream and the client's, whatever the API.

    `ended` is that all of the answer was read, `broken` that the engine has said itself that it cannot go on.
    """

    ended: bool
    broken: bool

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
        counts = {choice: of_body(event[len(DATA) :]) for choice, event in self._delivered.items()}
        if self._single_choice:
            return counts.get(0, NO_USAGE)
        if _TOTALS in counts:
            return counts[_TOTALS]
        prompts = {choice // self._n: usage.prompt_tokens for choice, usage in counts.items()}
        return Usage(
            prompt_tokens=sum(prompts.values()),
            completion_tokens=sum(usage.completion_tokens or 0 for usage in counts.values()),
        )

    def _take(self, event: bytes) -> bytes:
        if self._again is not None:
            self._notice(event)
        at = event.rfind(_USAGE)
        if at < 0 or event.find(_ANOTHER_FIELD, at) >= 0 or event.rfind(_UNFINISHED, 0, at) < 0 or self._held is not None:
            return self._take_apart(event)
        self._read[0 if self._single_choice else _index(event)] = event
        return event if self._wish is UsageWish.EVERY_CHUNK else event[: at + 1] + _CHUNK_END

    def _take_apart(self, event: bytes) -> bytes:
        if self.broken or _is_engines_fault(event):
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


class Recorder(StreamReader):
    """For a call with a `plan`, which can go on elsewhere: the gateway asked for its token ids.

    What is kept: the prompt's ids, and those of the output up to the last chunk that said something. Later ones are of
    characters that are not complete yet; they are made again. All of it is kept as the engine wrote it, never decoded.
    """

    def __init__(self, wish: UsageWish, plan: Plan, *, again: Send | None = None) -> None:
        super().__init__(wish, again=again)
        self._plan = plan
        self._speech = _CHAT_SPEECH if plan.chat else _TEXT_SPEECH
        self._before_ids = _CHAT_BEFORE_IDS if plan.chat else _TEXT_BEFORE_IDS
        without_ids = self._before_ids[:-1] + b"null"
        self._keeps_usage = wish is UsageWish.EVERY_CHUNK
        self._ending = without_ids if self._keeps_usage else without_ids + b"}]" + _CHUNK_END
        self._ordinary = _NEVER  # what its ordinary chunks begin with, up to the text
        self._prompt_ids = b""
        self._ids = bytearray()  # `[1[2,3[4`: with the bracket that each chunk's began with
        self._kept = 0  # bytes of them up to the last text
        self._thought = 0  # bytes of them up to the last reasoning
        self._spoke = b""  # the last chunk with text
        self._lost = False  # something was said that cannot be gone on with
        self._finished = False
        self._counted = False  # the totals were read
        self._resumption: Resumption | None = None

    def go_on(self, answer: bytes | None = None) -> Step | None:
        if self.ended or (self._again is not None and not self._finished):
            self._ids.clear()
            return super().go_on()
        if self._finished:
            return self._end([DONE] if self._counted else [self._continued(None).totals(), DONE])
        if self._lost or self._thought >= self._kept or not self._prompt_ids:
            return None
        if answer is None or self._resumption is None:
            self._resumption = Resumption(self._plan, self._prompt_ids, bytes(self._ids[: self._kept]), _said_in(self._spoke))
        step = self._resumption.next(answer)
        return self._go_on_from(self._resumption, step) if isinstance(step, Send) else step

    def _go_on_from(self, resumption: Resumption, request: Send) -> Step:
        continued = self._continued(resumption)
        if resumption.max_tokens <= 0:
            return self._end(continued.finish("length", resumption.held_back))
        self._ids = bytearray(resumption.ids)
        self._kept = len(self._ids)
        self._translate = continued
        self._mend()
        return request

    def _continued(self, resumption: Resumption | None) -> Continued:
        counts = counts_in(self._read.get(0, b""))
        if resumption is None:
            return Continued(chat=self._plan.chat, opening=self._opening, counts=counts)
        matcher = None
        if self._plan.stop.strings:
            matcher = StopMatcher(self._plan.stop, resumption.text, self._plan.min_tokens - resumption.kept)
        return Continued(chat=self._plan.chat, opening=self._opening, counts=counts, kept=resumption.kept, matcher=matcher)

    def _end(self, events: list[bytes]) -> End:
        self._translate = None
        self._mend()
        return End(b"".join([self._take(event) for event in events]))

    def _take(self, event: bytes) -> bytes:
        """As the reader's; the ordinary chunk has one choice, a delta with nothing but content, no logprobs, no finish."""
        text, at = len(self._ordinary), event.rfind(self._before_ids)
        ids_begin = at + len(self._before_ids)
        ids_end = event.find(_BEHIND_IDS, ids_begin)
        if (
            not event.startswith(self._ordinary)
            or at < text
            or ids_end <= ids_begin
            or event.find(_ANOTHER_STRING, text, at) >= 0
        ):
            return self._take_apart(event)
        self._ids += event[ids_begin - 1 : ids_end]
        if at > text:
            self._kept = len(self._ids)
            self._spoke = event
        self._read[0] = event
        out = event[:at] + self._ending
        return out + event[ids_end + 1 :] if self._keeps_usage else out

    def _take_apart(self, event: bytes) -> bytes:
        self.broken = self.broken or _ABORTED in event
        return super()._take_apart(event)

    def _cut(self, event: bytes) -> bytes:
        fields = fields_of(event)
        choices = choices_of(fields) if fields else []
        if fields is None or len(choices) != 1:
            self._counted = self._counted or (fields is not None and "usage" in fields)
            return super()._cut(event)
        choice = choices[0]
        self._opening = self._opening or event[: event.find(CHOICES)]
        self._record(event, fields, choice)
        if bytes(choice.get("delta", NULL)) == b"{}" and is_null(choice.get("finish_reason", NULL)):
            self._read[0] = event
            return b""
        for holder in (fields, choice):
            for name in ("prompt_token_ids", "token_ids"):
                if name in holder:
                    holder[name] = NULL
        fields["choices"] = to_raw(choices)
        return self._cut_usage(to_event(fields), fields, choices)

    def _record(self, event: bytes, fields: Fields, choice: Fields) -> None:
        for holder in (fields, choice):
            self._prompt_ids = _items(holder.get("prompt_token_ids", NULL)) or self._prompt_ids
        self._finished = self._finished or not is_null(choice.get("finish_reason", NULL))
        delta = inner(choice["delta"]) if "delta" in choice else {"content": choice.get("text", NULL)}
        if "role" in delta:
            self._roles += 1
            return
        ids = _items(choice.get("token_ids", NULL))
        if ids:
            self._ids += b"[" + ids
        said = {name for name, value in delta.items() if not is_null(value)} - {"content"}
        if not ids or not is_null(choice.get("logprobs", NULL)) or said - _THOUGHTS:
            self._lost = True
        elif said:
            self._thought = len(self._ids)
        elif text_of(delta.get("content", NULL)):
            self._kept = len(self._ids)
            self._spoke = event
            at = event.find(self._speech)
            if at >= 0 and list(fields)[-1] == "usage":
                self._ordinary = event[: at + len(self._speech)]
        else:
            return
        self._again = None


def _index(event: bytes) -> int:
    """Which choice a chunk belongs to."""
    begin = event.find(_FIRST_INDEX) + len(_FIRST_INDEX)
    digits = event[begin : event.find(b",", begin)]
    return int(digits) if digits.isdigit() else 0


def _items(raw: msgspec.Raw) -> bytes:
    """A JSON list without its brackets; empty if it is none."""
    data = bytes(raw)
    return data[1:-1] if data[:1] == b"[" else b""


def _said_in(event: bytes) -> str:
    """The text of a chunk with one choice."""
    choice = choices_of(fields_of(event) or {})[0]
    return text_of(inner(choice["delta"])["content"] if "delta" in choice else choice["text"])


class _Failure(msgspec.Struct, frozen=True):
    code: int | None = None


class _ErrorEvent(msgspec.Struct, frozen=True):
    error: _Failure


def _is_engines_fault(event: bytes) -> bool:
    """Whether it says that the engine failed; of what is wrong with the request another engine would say the same."""
    if not event.startswith(ENGINE_ERROR):
        return False
    try:
        code = msgspec.json.decode(event[len(DATA) :], type=_ErrorEvent).error.code
    except msgspec.DecodeError:
        return True
    return code is None or code >= 500
