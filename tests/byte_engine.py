"""A small greedy engine whose tokens are pieces of bytes, so that characters are cut in the middle: vLLM 0.29's ways, modelled.

The next token is a function of the ids so far: it follows `words` as long as the ids do, and goes astray where they do not. The
decoder is that of the `tokenizers` library (`DecodeStream`), the holding back that of vLLM's `IncrementalDetokenizer`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.vllm_stream import Generation, Step

END = 2
FILLER = 3  # what is likeliest where the end is not allowed yet
ASTRAY = 4
_FIRST_WORD = 1_000
_INCOMPLETE = "\ufffd"


@dataclass
class ByteEngine:
    """`merges` are the numbers of tokens that its chunks hold, over and over; a prompt begins with its own length."""

    words: tuple[bytes, ...]
    merges: tuple[int, ...] = (1,)
    prompt: tuple[int, ...] = (3, 7, 7)
    max_model_len: int = 512
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        vocabulary = sorted(set(self.words))
        self._bytes = {_FIRST_WORD + place: word for place, word in enumerate(vocabulary)}
        self._bytes |= {END: b"", FILLER: b"~", ASTRAY: "✗".encode(), 7: "지시 ".encode(), len(self.prompt): b"<s>"}
        self._script = [_FIRST_WORD + vocabulary.index(word) for word in self.words]

    def answer(self, path: str, body: bytes) -> bytes:
        """To a question that is not for a stream."""
        self.asked.append(path)
        if path == "/detokenize":
            return json.dumps({"prompt": self.decode(json.loads(body)["tokens"])}).encode()
        assert path == "/tokenize"
        return json.dumps({"count": 1, "max_model_len": self.max_model_len, "tokens": [1]}).encode()

    def stream(self, path: str, body: bytes, name: str) -> Generation:
        """What it would say to a streaming request."""
        request = json.loads(body)
        chat = path == "/v1/chat/completions"
        prompt = list(self.prompt) if chat or isinstance(request["prompt"], str) else request["prompt"]
        outputs = _Run(self, request, prompt, self._limit(request, chat, prompt)).outputs()
        steps = tuple(_step(merged, chat) for merged in self._merged(outputs))
        return Generation(chat, 1, (len(prompt),), steps, prompt_ids=tuple(prompt), name=name, created=1750000000 + len(name))

    def decode(self, ids: list[int]) -> str:
        return b"".join(self._bytes[token] for token in ids).decode(errors="replace")

    def next(self, ids: list[int], may_end: bool) -> int:
        said = ids[ids[0] :]
        if said[: len(self._script)] != self._script[: len(said)]:
            return ASTRAY
        if len(said) < len(self._script):
            return self._script[len(said)]
        return END if may_end else FILLER

    def _limit(self, request: dict[str, Any], chat: bool, prompt: list[int]) -> int:
        given = request.get("max_tokens")
        if chat and request.get("max_completion_tokens") is not None:
            given = request["max_completion_tokens"]
        if given is None:
            given = self.max_model_len - len(prompt) if chat else 16
        assert given + len(prompt) <= self.max_model_len, "vLLM would refuse this"
        assert given > 0, "and this"
        return int(given)

    def _merged(self, outputs: list[_Output]) -> list[list[_Output]]:
        merged: list[list[_Output]] = []
        while outputs:
            size = self.merges[len(merged) % len(self.merges)]
            merged.append(outputs[:size])
            outputs = outputs[size:]
        return merged


@dataclass(frozen=True)
class _Output:
    token: int
    text: str
    finish: str | None = None
    stop_reason: str | None = None


def _step(outputs: list[_Output], chat: bool) -> Step:
    text, last = "".join(output.text for output in outputs), outputs[-1]
    ids = tuple(output.token for output in outputs)
    says = {"content": text} if chat else {"text": text}
    return Step(0, len(ids), says, finish=last.finish, stop_reason=last.stop_reason, ids=ids)


class _Run:
    """One generation."""

    def __init__(self, engine: ByteEngine, request: dict[str, Any], prompt: list[int], limit: int) -> None:
        self._engine = engine
        self._ids = list(prompt)
        self._begun = len(prompt)
        self._limit = limit
        self._min = request.get("min_tokens") or 0
        stop = request.get("stop") or []
        self._stop = [stop] if isinstance(stop, str) else stop
        self._included = bool(request.get("include_stop_str_in_output"))
        self._held = 0 if self._included or not self._stop else max(map(len, self._stop)) - 1
        self._stream = list(prompt)  # the decoder's window, and what of it is text already
        self._prefix = ""
        self._prefix_at = 0
        self._text = ""
        self._sent = 0

    def outputs(self) -> list[_Output]:
        outputs: list[_Output] = []
        while not outputs or outputs[-1].finish is None:
            outputs.append(self._output())
        return outputs

    def _output(self) -> _Output:
        count = len(self._ids) - self._begun + 1
        token = self._engine.next(self._ids, may_end=count > self._min)
        self._ids.append(token)
        finish = "stop" if token == END else "length" if count >= self._limit else None
        before = len(self._text)
        if token != END:
            self._text += self._decode(token)
        stop = self._stop_in(before) if count > self._min else None
        if stop is not None:
            finish = "stop"
        end = len(self._text) - (0 if finish else self._held)
        text = self._text[self._sent : end] if end > self._sent else ""
        self._sent = max(self._sent, end)
        return _Output(token, text, finish, stop)

    def _stop_in(self, before: int) -> str | None:
        """The stop string that is complete first in the new text; the text is cut there."""
        for end in range(before + 1, len(self._text) + 1):
            for string in self._stop:
                if self._text[:end].endswith(string):
                    self._text = self._text[: end if self._included else end - len(string)]
                    return string
        return None

    def _decode(self, token: int) -> str:
        if not self._prefix and self._stream:
            prefix = self._engine.decode(self._stream)
            if not prefix.endswith(_INCOMPLETE):
                self._prefix, self._prefix_at = prefix, len(self._stream)
        self._stream.append(token)
        text = self._engine.decode(self._stream)
        if len(text) <= len(self._prefix) or text.endswith(_INCOMPLETE):
            return ""
        new = text[len(self._prefix) :]
        window = len(self._stream) - self._prefix_at
        self._stream = self._stream[self._prefix_at :]
        self._prefix, self._prefix_at = self._engine.decode(self._stream), window
        return new
