"""Equal beginnings have equal hashes; memory is bounded and keeps what is used."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.prefix import (
    DEFAULT_ENTRIES,
    ENTRY_BYTES,
    LEAST_BLOCK_BYTES,
    LEAST_ENTRIES,
    MOST_BLOCKS,
    MOST_BYTES,
    PrefixMemory,
    chain,
    entries_for,
    share,
)


def text(number: int, size: int = 2000) -> bytes:
    return (f"{number}번 " * size).encode()[:size]


def common(one: list[int], other: list[int]) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@given(st.integers(0, 3 * MOST_BYTES), st.integers(0, 3 * MOST_BYTES), st.integers(0, 3 * MOST_BYTES))
def test_chains_are_alike_as_far_as_the_prompts_are(same: int, mine: int, yours: int) -> None:
    """To a block, which is at most a sixteenth of what lies before it, or 256 bytes."""
    alike = common(chain(b"s" * same + b"m" * mine), chain(b"s" * same + b"y" * yours))
    seen = min(same if mine and yours else same + min(mine, yours), MOST_BYTES)
    blocks = share(alike, MOST_BYTES) * MOST_BYTES
    assert blocks <= seen
    assert seen - blocks <= max(LEAST_BLOCK_BYTES, seen / 16)


def test_short_prompt_is_not_worth_remembering() -> None:
    assert chain(b"x" * (LEAST_BLOCK_BYTES - 1)) == []


def test_huge_prompt_costs_no_more_blocks_than_a_large_one() -> None:
    assert len(chain(b"x" * 10_000_000)) == len(chain(b"x" * MOST_BYTES)) == MOST_BLOCKS
    assert share(MOST_BLOCKS, 10_000_000) == 1.0


def test_later_turn_is_known_as_far_as_the_earlier_one_went() -> None:
    memory, first = PrefixMemory(), b'[{"role":"user","content":"' + text(1) + b'"}]'
    memory.remember(chain(first))
    later = first[:-1] + b',{"role":"assistant","content":"' + text(2) + b'"}]'
    known = memory.known_blocks(chain(later))
    assert known == len(chain(first))
    assert 0.4 < share(known, len(later)) < 0.5


def test_what_is_used_stays_and_what_is_not_goes() -> None:
    memory, mark = PrefixMemory(LEAST_ENTRIES), hash("session")
    memory.remember(chain(text(0)))
    memory.remember(chain(text(1)), mark)
    for number in range(2, 60):
        memory.remember(chain(text(number)))
        memory.remember(chain(text(1)), mark)
    assert memory.known_blocks(chain(text(0))) == 0
    assert memory.known_blocks(chain(text(1))) == len(chain(text(1)))
    assert mark in memory.known


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from([100, 1000, 10_000, 100_000])), max_size=200))
def test_known_blocks_are_those_remembered_from_the_start_without_gaps(prompts: list[tuple[int, int]]) -> None:
    memory, all_chains = PrefixMemory(LEAST_ENTRIES), [chain(text(*prompt)) for prompt in prompts]
    for at, hashes in enumerate(all_chains):
        memory.remember(hashes, at)
        assert memory.known_blocks(hashes) == len(hashes), "what was remembered last is known"
        assert len(memory.known) <= LEAST_ENTRIES
    for hashes in all_chains:
        inside = [one in memory.known for one in hashes]
        assert inside == sorted(inside, reverse=True), "no gaps"
        assert memory.known_blocks(hashes) == sum(inside)


def test_memory_in_bytes_is_bounded() -> None:
    tracemalloc.start()
    try:
        memory = PrefixMemory()
        for number in range(1500):
            memory.remember(chain(text(number, 300 + 37 * number % 30_000)), hash(str(number)))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most <= DEFAULT_ENTRIES * ENTRY_BYTES


def test_smaller_memory_starts_anew() -> None:
    memory = PrefixMemory()
    memory.remember(chain(text(1)))
    memory.resize(2 * DEFAULT_ENTRIES)
    assert memory.known_blocks(chain(text(1)))
    memory.resize(LEAST_ENTRIES)
    assert not memory.known


def test_entries_follow_the_size_of_the_cache_within_bounds() -> None:
    assert entries_for(0) == LEAST_ENTRIES
    assert LEAST_ENTRIES < entries_for(400_000) < entries_for(800_000) < entries_for(10**9) == entries_for(10**10)
