"""Reading a stream that can go on elsewhere: what was said so far is recorded, and after a break gone on from.

The reader before this one (`gateway.protocol.stream_reader`) cuts and counts; this one also cuts out the token ids that the
gateway asked for, and keeps them.
"""

from __future__ import annotations

import msgspec

from gateway.protocol.chunk import NULL, Fields, choices_of, fields_of, inner, is_null, text_of, to_event, to_raw
from gateway.protocol.continuation import End, Plan, Send, Step
from gateway.protocol.openai import UsageWish
from gateway.protocol.resumption import Resumption
from gateway.protocol.sse import DONE
from gateway.protocol.stop_strings import StopMatcher
from gateway.protocol.stream_reader import CHUNK_END, StreamReader
from gateway.protocol.translation import CHOICES, Continued, counts_in

_CHAT_SPEECH = b'"choices":[{"index":0,"delta":{"content":"'
_TEXT_SPEECH = b'"choices":[{"index":0,"text":"'
_CHAT_BEFORE_IDS = b'"},"logprobs":null,"finish_reason":null,"token_ids":['
_TEXT_BEFORE_IDS = b'","logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":['
_BEHIND_IDS = b']}],"usage":{'
_ANOTHER_STRING = b'","'
_NEVER = b"\xff"  # begins no event
_ABORTED = b'"finish_reason":"abort"'  # what an engine that is told to stop says to those it leaves alone
_THOUGHTS = frozenset({"reasoning", "reasoning_content"})


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
        self._ending = without_ids if self._keeps_usage else without_ids + b"}]" + CHUNK_END
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

    @property
    def stopped(self) -> bool:
        return isinstance(self._translate, Continued) and self._translate.stopped

    def go_on(self, answer: bytes | None = None) -> Step | None:
        if self.ended or (self._again is not None and not self._finished):
            self._ids.clear()
            return super().go_on()
        if self._finished:
            return self._end([DONE] if self._counted else [self._continued(None).totals(), DONE])
        if self._lost or self._thought >= self._kept or not self._prompt_ids:
            return None
        if answer is None or self._resumption is None:
            self._resumption = Resumption(
                self._plan,
                self._prompt_ids,
                bytes(self._ids[: self._kept]),
                _said_in(self._spoke),
                parsed=self._thought > 0,
            )
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


def _items(raw: msgspec.Raw) -> bytes:
    """A JSON list without its brackets; empty if it is none."""
    data = bytes(raw)
    return data[1:-1] if data[:1] == b"[" else b""


def _said_in(event: bytes) -> str:
    """The text of a chunk with one choice."""
    choice = choices_of(fields_of(event) or {})[0]
    return text_of(inner(choice["delta"])["content"] if "delta" in choice else choice["text"])
