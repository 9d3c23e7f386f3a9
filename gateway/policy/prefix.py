"""Which beginnings of prompts a replica has probably in its cache. Nothing here is certain: only the engine knows its cache.

A prompt is cut into blocks at fixed places of its bytes, and each block is hashed together with all that lies before it
(a chain), so that equal hashes mean equal beginnings. Blocks grow with the distance from the start: 256 bytes, then a
sixteenth of what lies before. A megabyte costs as little as the first 64 kB, and the place where two prompts part is known
to a sixteenth. Rejected: a radix tree of the text, which costs more time and memory to tell the same.
"""

from __future__ import annotations

from bisect import bisect_right

LEAST_BLOCK_BYTES = 256
MOST_BYTES = 64 * 1024
ENTRY_BYTES = 256  # of memory, at most, for one entry: an integer and its slots in two sets, which grow fourfold
DEFAULT_ENTRIES = 8_192

_GROWTH = 16
_PROMPT_BYTES_PER_TOKEN = 4  # Korean and English as UTF-8 JSON: 3 to 6


def _ends() -> tuple[int, ...]:
    ends = [LEAST_BLOCK_BYTES]
    while ends[-1] < MOST_BYTES:
        ends.append(min(ends[-1] + max(LEAST_BLOCK_BYTES, ends[-1] // _GROWTH), MOST_BYTES))
    return tuple(ends)


_ENDS = _ends()
MOST_BLOCKS = len(_ENDS)
LEAST_ENTRIES = 4 * MOST_BLOCKS


def chain(prompt: bytes) -> list[int]:
    """One hash for each whole block of the prompt's first 64 kB, each standing for all bytes up to its block's end."""
    hashes, before, start = [], 0, 0
    for end in _ENDS[: bisect_right(_ENDS, len(prompt))]:
        before = hash((before, prompt[start:end]))
        hashes.append(before)
        start = end
    return hashes


def share(blocks: int, prompt_bytes: int) -> float:
    """How much of the prompt its first so many blocks are, from 0 to 1. All of what is looked at counts as all."""
    return _ENDS[blocks - 1] / min(prompt_bytes, MOST_BYTES) if blocks else 0.0


def entries_for(kv_tokens: int) -> int:
    """How many hashes stand for as much text as a KV cache of that many tokens holds, within bounds."""
    return min(max(kv_tokens * _PROMPT_BYTES_PER_TOKEN // LEAST_BLOCK_BYTES, LEAST_ENTRIES), 4 * DEFAULT_ENTRIES)


class PrefixMemory:
    """What one replica was given, forgetting what was not used lately.

    Entries go into `known`, where they are looked up, and into the young generation. When that is full, it becomes what is
    known, and all that was not used since it began is forgotten. This costs no bookkeeping an entry. A chain is remembered
    in one go, so where a block is known all blocks before it are, and the last known one is found by halving.
    """

    __slots__ = ("_half", "_young", "known")

    def __init__(self, most_entries: int = DEFAULT_ENTRIES) -> None:
        self.known: set[int | None] = set()
        self._young: set[int | None] = set()
        self._half = most_entries // 2

    def resize(self, most_entries: int) -> None:
        """Hold at most so many entries from now on."""
        if most_entries // 2 < self._half:
            self.clear()
        self._half = most_entries // 2

    def clear(self) -> None:
        self.known, self._young = set(), set()

    def remember(self, hashes: list[int], mark: int | None = None) -> None:
        """A whole chain, and the hash of something else beside it."""
        if len(self._young) + len(hashes) >= self._half:
            self.known, self._young = self._young, set()
        self._young.update(hashes)
        self.known.update(hashes)
        if mark is not None:
            self._young.add(mark)
            self.known.add(mark)

    def known_blocks(self, hashes: list[int]) -> int:
        """How many of a chain's blocks, from its start, are known."""
        known, low, high = self.known, 0, len(hashes)
        while low < high:
            middle = (low + high) // 2
            if hashes[middle] in known:
                low = middle + 1
            else:
                high = middle
        return low
