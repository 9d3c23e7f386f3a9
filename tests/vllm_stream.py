"""A small model of how vLLM 0.29 writes its streams, byte for byte, for any content and any stream options.

After vLLM's `chat_completion_stream_generator` and `completion_stream_generator`: fields in the order of their pydantic models,
unset ones left out, compact, and not escaped to ASCII.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from gateway.protocol.openai import UsageWish
from gateway.protocol.sse import DONE
from gateway.protocol.usage import Usage

Fields = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One output of the engine: so many new tokens of one choice, and what they say. The last step of a choice finishes it.

    `choice` counts over all prompts; `says` is the chat's delta or `{"text": …}`. A delta `{}` that finishes nothing is a
    parser with nothing to say: it is sent only for the sake of its ids.
    """

    choice: int
    tokens: int
    says: Fields
    logprobs: Fields | None = None
    finish: str | None = None
    stop_reason: str | int | None = None
    ids: tuple[int, ...] = ()

    @property
    def token_ids(self) -> list[int]:
        """Its ids: those given, or some of the right number."""
        return list(self.ids) or [1_000 * (self.choice + 1) + place for place in range(self.tokens)]

    @property
    def is_silent(self) -> bool:
        return self.says == {} and not self.finish


@dataclass(frozen=True)
class Generation:
    """Everything that the engine will say to one call."""

    chat: bool
    n: int
    prompt_tokens: tuple[int, ...]
    steps: tuple[Step, ...]
    fingerprint: str | None = "vllm-0.29.0-tp1-3f2a9c"
    cached_tokens: int | None = None
    model: str = "daemun-demo"
    prompt_ids: tuple[int, ...] = ()
    name: str = "9f"
    created: int = 1750000000
    reasoning_tokens: int | None = None

    @property
    def single_choice(self) -> bool:
        return self.n == len(self.prompt_tokens) == 1

    def events(self, wish: UsageWish, *, ids: bool = False, fingerprint: bool = True) -> list[bytes]:
        """The whole stream. `ids`: token ids were asked for. `fingerprint` False leaves it out where a finish reason is."""
        chunks = [*self._roles(wish, ids), *self._outputs(wish, ids, fingerprint)]
        if wish is not UsageWish.NONE:
            chunks.append(self._totals())
        return [b"data: " + _dump(chunk) + b"\n\n" for chunk in chunks] + [DONE]

    def used_after(self, steps: int) -> Usage:
        """The counts that the first `steps` outputs come to: prompts count once their first choice has said something."""
        said = self.steps[:steps]
        prompts = {step.choice // self.n for step in said} | ({0} if self.chat else set())
        return Usage(sum(self.prompt_tokens[prompt] for prompt in prompts), sum(step.tokens for step in said))

    def _prompt_ids(self, prompt: int) -> list[int]:
        return list(self.prompt_ids) or list(range(self.prompt_tokens[prompt]))

    def _roles(self, wish: UsageWish, ids: bool) -> Iterator[Fields]:
        for index in range(self.n if self.chat else 0):
            delta = {"role": "assistant", "content": ""}
            chunk = self._chunk({"index": index, "delta": delta, "logprobs": None, "finish_reason": None})
            if wish is UsageWish.EVERY_CHUNK:
                chunk["usage"] = self._usage(self.prompt_tokens[0], 0)
            yield chunk | {"prompt_token_ids": self._prompt_ids(0) if ids else None, "prompt_text": None}

    def _outputs(self, wish: UsageWish, ids: bool, fingerprint: bool) -> Iterator[Fields]:
        counts = [0] * (self.n * len(self.prompt_tokens))
        begun: set[int] = set()
        for step in self.steps:
            counts[step.choice] += step.tokens
            if self.chat and step.is_silent and not ids:
                continue
            choice = self._chat_choice(step) if self.chat else self._text_choice(step)
            if ids:
                choice["token_ids"] = step.token_ids
                if not self.chat and step.choice not in begun:
                    choice["prompt_token_ids"] = self._prompt_ids(step.choice // self.n)
            begun.add(step.choice)
            chunk = self._chunk(choice)
            if wish is UsageWish.EVERY_CHUNK:
                chunk["usage"] = self._usage(self.prompt_tokens[step.choice // self.n], counts[step.choice])
            if wish is UsageWish.NONE and step.finish and self.fingerprint and fingerprint:
                chunk["system_fingerprint"] = self.fingerprint
            yield chunk

    def _totals(self) -> Fields:
        prompt, completion = sum(self.prompt_tokens), sum(step.tokens for step in self.steps)
        usage: Fields = {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}
        if self.cached_tokens is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": self.cached_tokens}
        if self.chat and self.reasoning_tokens is not None:
            usage["completion_tokens_details"] = {"reasoning_tokens": self.reasoning_tokens}
        chunk = self._chunk(None) | {"usage": usage}
        return chunk | {"system_fingerprint": self.fingerprint} if self.fingerprint else chunk

    def _chunk(self, choice: Fields | None) -> Fields:
        kind, name = ("chatcmpl", "chat.completion.chunk") if self.chat else ("cmpl", "text_completion")
        choices = [] if choice is None else [choice]
        return {"id": f"{kind}-{self.name}", "object": name, "created": self.created, "model": self.model, "choices": choices}

    def _chat_choice(self, step: Step) -> Fields:
        choice = {"index": step.choice, "delta": step.says, "logprobs": step.logprobs, "finish_reason": step.finish}
        return choice | ({"stop_reason": step.stop_reason} if step.finish else {}) | {"token_ids": None}

    def _text_choice(self, step: Step) -> Fields:
        choice = {"index": step.choice, "text": step.says["text"], "logprobs": step.logprobs, "finish_reason": step.finish}
        return choice | {"stop_reason": step.stop_reason, "prompt_token_ids": None, "token_ids": None}

    def _usage(self, prompt: int, completion: int) -> Fields:
        usage = {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}
        thoughts = None if self.reasoning_tokens is None else {"reasoning_tokens": self.reasoning_tokens}
        return usage | {"completion_tokens_details": thoughts} if self.chat else usage


def chat(*words: str, prompt_tokens: int = 7) -> Generation:
    """One choice that says these words, one token each, and stops."""
    steps = [Step(0, 1, {"content": word}) for word in words]
    return Generation(True, 1, (prompt_tokens,), (*steps, Step(0, 1, {"content": ""}, finish="stop")))


def cut(data: bytes, points: list[int]) -> list[bytes]:
    """`data` in pieces, cut at these points: how a network may deliver it."""
    bounds = [0, *sorted(point % (len(data) + 1) for point in points), len(data)]
    return [data[begin:end] for begin, end in pairwise(bounds) if end > begin]


def completion_tokens_in(events: list[bytes], generation: Generation) -> int:
    """Tokens that a client has received with the first events of a single chat choice, role and totals not counted."""
    outputs = sum(b'"delta":{' in event and b'"role"' not in event for event in events)
    return [0, *accumulate(step.tokens for step in generation.steps)][outputs]


def _dump(fields: Fields) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
