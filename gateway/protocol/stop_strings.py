"""Stopping at stop strings as vLLM's detokenizer does it, for text that one engine began and another goes on with.

The engine that goes on knows nothing of the text before, so it is asked without stop strings and this decides in its place.
Without `include_stop_str_in_output` vLLM sends text only once no stop string can begin in it any more: the longest one's
length less one is always held back.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StopStrings:
    """What a request says about them; `strings` may be empty."""

    strings: tuple[str, ...] = ()
    included: bool = False

    @property
    def reach(self) -> int:
        """How many characters before new text a stop string may begin that ends in it."""
        return max(map(len, self.strings), default=1) - 1

    @property
    def held_back(self) -> int:
        """How many characters an engine holds back while it generates."""
        return 0 if self.included else self.reach


class StopMatcher:
    """Finds the first stop string to be complete. `text` is all that was generated so far, held back characters included.

    Stop strings that are complete within the first `min_tokens` more tokens are no stops.
    """

    def __init__(self, stop: StopStrings, text: str, min_tokens: int = 0) -> None:
        self._stop = stop
        self._tail = text[max(0, len(text) - stop.reach) :]
        self._exempt_tokens = min_tokens
        self.taken = 0  # characters of the last text up to the end of the stop string found in it

    def feed(self, text: str, tokens: int) -> tuple[str, str | None]:
        """What may be said now that `tokens` more tokens brought `text`, and the stop string that ends it, if one does."""
        self._exempt_tokens -= tokens
        whole = self._tail + text
        said = len(self._tail) if self._stop.included else 0
        found = None if self._exempt_tokens >= 0 else self._find(whole)
        if found is not None:
            string, end = found
            self.taken = end - len(self._tail)
            return whole[said : end if self._stop.included else end - len(string)], string
        keep = max(0, len(whole) - self._stop.reach)
        self._tail = whole[keep:]
        return (text if self._stop.included else whole[:keep]), None

    def rest(self) -> str:
        """What is held back, once nothing more will come."""
        return "" if self._stop.included else self._tail

    def _find(self, whole: str) -> tuple[str, int] | None:
        """The string that is complete first, and where it ends; of two that end together the one listed first."""
        ends = []
        for string in self._stop.strings:
            at = whole.find(string, max(0, len(self._tail) - len(string) + 1))
            if at >= 0:
                ends.append((at + len(string), string))
        if not ends:
            return None
        end, string = min(ends, key=lambda ending: ending[0])
        return string, end
