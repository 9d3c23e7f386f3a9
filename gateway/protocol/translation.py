"""What a new replica says, told as the old one would have: the client sees one stream.

A translation takes an event of the new stream and gives those of the old one, with everything that the gateway asks for still
in them, so that they are read, cut and recorded like any other. The continuation of a translated stream is thus no special case.
"""

from __future__ import annotations

import msgspec

from gateway.protocol.chunk import NULL, Fields, choices_of, fields_of, inner, is_null, number_of, text_of, to_raw
from gateway.protocol.sse import DATA, DONE
from gateway.protocol.stop_strings import StopMatcher
from gateway.protocol.usage import usage_of

CHOICES = b'"choices":['
_STOPPED = to_raw("stop")
_CHAT_CHOICE = b'{"index":0,"delta":{"content":%b},"logprobs":null,"finish_reason":%b,"token_ids":%b}'
_CHAT_FINISH = b'{"index":0,"delta":{"content":%b},"logprobs":null,"finish_reason":%b,"stop_reason":%b,"token_ids":%b}'
_TEXT_CHOICE = b'{"index":0,"text":%b,"logprobs":null,"finish_reason":%b,"stop_reason":%b,"prompt_token_ids":null,"token_ids":%b}'


def is_role(event: bytes) -> bool:
    """Whether it is a chat choice's first chunk, which says who speaks and nothing else."""
    return b'"delta":{"role":' in event


class Rerun:
    """The same request once more, when nothing but `roles` role chunks had been said: those are not said twice."""

    def __init__(self, opening: bytes, roles: int) -> None:
        self._opening = opening
        self._roles = roles

    def __call__(self, event: bytes) -> list[bytes]:
        at = event.find(CHOICES)
        if at < 0 or not event.startswith(DATA):
            return [event]
        if self._roles and is_role(event):
            self._roles -= 1
            return []
        return [self._opening + event[at:]]


class Continued:
    """A text completion that goes on with the stream whose chunks begin with `opening`, a chat's or a completion's.

    `counts` is the old stream's last usage; `kept` of its completion tokens, or all, are not generated again.
    """

    def __init__(
        self, *, chat: bool, opening: bytes, counts: Fields, kept: int | None = None, matcher: StopMatcher | None = None
    ) -> None:
        self._chat = chat
        self._opening = opening
        self._counts = counts
        self._prompt_tokens = number_of(counts.get("prompt_tokens", NULL))
        self._kept = number_of(counts.get("completion_tokens", NULL)) if kept is None else kept
        self._matcher = matcher
        self._tokens = 0
        self.stopped = False  # at a stop string that the engine knows nothing of

    def __call__(self, event: bytes) -> list[bytes]:
        if self.stopped:
            return []
        fields = fields_of(event)
        if fields is None or "choices" not in fields:
            return [event]
        counted = usage_of(event[len(DATA) :])
        before, self._tokens = self._tokens, counted.completion_tokens or 0
        choices = choices_of(fields)
        if not choices:
            cached = counted.cached_tokens if counted.prompt_tokens_details else None
            return [self.totals(cached, fields.get("system_fingerprint", NULL))]
        return self._chunk(choices[0], self._tokens - before)

    def totals(self, cached_tokens: int | None = None, fingerprint: msgspec.Raw = NULL) -> bytes:
        """The chunk before the end. The new replica found the kept output cached, perhaps; the client's prompt is smaller."""
        usage = self._usage()
        thoughts = usage.pop("completion_tokens_details", NULL)
        if cached_tokens is not None:
            usage["prompt_tokens_details"] = to_raw({"cached_tokens": min(cached_tokens, self._prompt_tokens)})
        if not is_null(thoughts):
            usage["completion_tokens_details"] = thoughts
        out = self._opening + CHOICES + b'],"usage":' + msgspec.json.encode(usage)
        return out + (b"}\n\n" if is_null(fingerprint) else b',"system_fingerprint":%b}\n\n' % bytes(fingerprint))

    def finish(self, reason: str, text: str = "") -> list[bytes]:
        """The rest of a stream that has nothing left to generate."""
        return [self._write(to_raw(text), to_raw(reason), NULL, msgspec.Raw(b"[]")), self.totals(), DONE]

    def _chunk(self, choice: Fields, tokens: int) -> list[bytes]:
        text, finish = choice.get("text", to_raw("")), choice.get("finish_reason", NULL)
        reason, ids = choice.get("stop_reason", NULL), choice.get("token_ids", NULL)
        if self._matcher is None:
            return [self._write(text, finish, reason, ids)]
        new = text_of(text)
        said, stop = self._matcher.feed(new, tokens)
        if stop is not None:
            # vLLM counts the tokens up to the stop string. Of a chunk of several only the text tells how many that are, roughly.
            self._tokens -= tokens * (len(new) - self._matcher.taken) // max(1, len(new))
            self.stopped = True
            return [self._write(to_raw(said), _STOPPED, to_raw(stop), ids), self.totals(), DONE]
        if not is_null(finish):
            said += self._matcher.rest()
        return [self._write(to_raw(said), finish, reason, ids)]

    def _write(self, text: msgspec.Raw, finish: msgspec.Raw, reason: msgspec.Raw, ids: msgspec.Raw) -> bytes:
        parts = map(bytes, (text, finish, reason, ids))
        if not self._chat:
            choice = _TEXT_CHOICE % tuple(parts)
        elif is_null(finish):
            choice = _CHAT_CHOICE % (bytes(text), bytes(finish), bytes(ids))
        else:
            choice = _CHAT_FINISH % tuple(parts)
        return self._opening + CHOICES + choice + b'],"usage":' + msgspec.json.encode(self._usage()) + b"}\n\n"

    def _usage(self) -> Fields:
        completion = self._kept + self._tokens
        return self._counts | {
            "prompt_tokens": to_raw(self._prompt_tokens),
            "total_tokens": to_raw(self._prompt_tokens + completion),
            "completion_tokens": to_raw(completion),
        }


def counts_in(event: bytes) -> Fields:
    """A chunk's usage."""
    return inner((fields_of(event) or {}).get("usage", NULL))
