"""From a break to the request that goes on: what has to be asked of a replica first, and what comes of the answers.

Not every id whose chunk has come has been said. A chunk of several tokens may end in the middle of a character, and while
there are stop strings vLLM holds characters back. Going on from the middle of a character is worse than losing it: vLLM would
then begin with the text of the whole prompt. So the ids are always turned into text once more, and must say what was said.
"""

from __future__ import annotations

import msgspec

from gateway.protocol.continuation import Ask, Plan, Send

_INCOMPLETE = "\ufffd"  # what a decoder makes of a character's first bytes


class _Answer(msgspec.Struct, frozen=True):
    """Of `/detokenize` and of `/tokenize`."""

    prompt: str | None = None
    max_model_len: int | None = None


class Resumption:
    """`ids` are those kept, each chunk's with a `[` before: `[1[2,3[4`. `said` is the text of the last chunk with text.

    `parsed`: the text went through a parser of the engine's, which may have kept some of it to itself.
    """

    def __init__(self, plan: Plan, prompt_ids: bytes, ids: bytes, said: str, *, parsed: bool = False) -> None:
        self.ids = ids
        self.text = ""
        self._plan = plan
        self._prompt_ids = prompt_ids
        # Text is late only with stop strings and parsers. Elsewhere the end will do: the ids' text may hold what is never said,
        # special tokens, in the middle.
        self._said = said if parsed or plan.stop.strings else said[-1:]
        self._spare = ids.count(b",", ids.rfind(b"["))  # ids at the end that may not have been said
        self._max_model_len: int | None = None

    @property
    def kept(self) -> int:
        return self.ids.count(b",") + self.ids.count(b"[")

    @property
    def held_back(self) -> str:
        """What was generated and never sent, because a stop string might have begun in it."""
        return self.text[len(self.text) - self._plan.stop.held_back :] if self._plan.stop.held_back else ""

    @property
    def max_tokens(self) -> int:
        """How many tokens may still come."""
        if self._plan.max_tokens is not None:
            return self._plan.max_tokens - self.kept
        return (self._max_model_len or 0) - self._prompt_ids.count(b",") - 1 - self.kept

    def next(self, answer: bytes | None) -> Ask | Send | None:
        """The next question, or the request that goes on (unless `max_tokens` are used up); None if it cannot."""
        if answer is not None and not self._learn(answer):
            return None
        if not self.text:
            return self._plan.ask("/detokenize", "tokens", msgspec.Raw(b"[" + self._listed() + b"]"))
        if self._plan.max_tokens is None and self._max_model_len is None:
            return self._plan.ask("/tokenize", "prompt", msgspec.Raw(b'"."'))
        return self._plan.request(self._prompt_ids + b"," + self._listed(), self.kept, self.max_tokens)

    def _listed(self) -> bytes:
        return self.ids[1:].replace(b"[", b",")

    def _learn(self, answer: bytes) -> bool:
        try:
            told = msgspec.json.decode(answer, type=_Answer)
        except msgspec.DecodeError:
            return False
        if self.text:
            self._max_model_len = told.max_model_len
            return told.max_model_len is not None
        return self._believe(told.prompt or "")

    def _believe(self, text: str) -> bool:
        """Take `text` for what the ids say, or drop the last id, whose character is not complete, and ask again."""
        sent = text[: len(text) - self._plan.stop.held_back]
        if sent.endswith(self._said) and not text.endswith(_INCOMPLETE):
            self.text = text
            return True
        if not self._spare:
            return False
        self._spare -= 1
        self.ids = self.ids[: self.ids.rfind(b",")]
        return True
