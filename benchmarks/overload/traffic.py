"""Who asks for what in the virtual runs: calls at random moments, of random sizes, the same for the same seed. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import merge
from random import Random

from gateway.policy.limits import Tier
from loadtests.overload_sim import Visit

PROMPT_TOKENS, OUTPUT_TOKENS = 600, 220  # means, before the longest are cut off
PAID_TARGET_S = 1.0  # to the first token, of reserved calls too
_SPREAD = 0.8  # of the logarithm of both
_MOST_PROMPT, _MOST_OUTPUT = 6000, 2000


@dataclass(frozen=True, slots=True)
class Source:
    """`per_s` calls of a tier, from its tenants at random, each of which should have its first token within `target_s`."""

    tier: Tier
    per_s: float
    tenants: tuple[str, ...]
    target_s: float = math.inf
    patience_s: float | None = None


def tenants(name: str, number: int) -> tuple[str, ...]:
    return tuple(f"{name}-{index}" for index in range(number))


def mix(per_s: float) -> tuple[Source, ...]:
    """Of a service with all tiers: half of the calls are free. Who chats for nothing waits 4 s at most; paid calls leave that
    to the gateway.
    """
    return (
        Source(Tier.RESERVED, 0.1 * per_s, tenants("reserved", 2), PAID_TARGET_S),
        Source(Tier.PAID, 0.3 * per_s, tenants("paid", 8), PAID_TARGET_S),
        Source(Tier.FREE, 0.5 * per_s, tenants("free", 40), 5.0, 4.0),
        Source(Tier.BATCH, 0.1 * per_s, tenants("batch", 2)),
    )


def visits(
    sources: tuple[Source, ...], until: float, seed: int, times: Callable[[float], float] = lambda _: 1.0
) -> Iterator[Visit]:
    """In the order of time. `times`: how many times as many at that moment, at most what it is at the largest."""
    streams = [_of(source, until, Random(f"{seed} {source.tier.value} {source.tenants[0]}"), times) for source in sources]  # noqa: S311
    return merge(*streams, key=lambda visit: visit.at)


def _of(source: Source, until: float, random: Random, times: Callable[[float], float]) -> Iterator[Visit]:
    at = 0.0
    while True:
        at += random.expovariate(source.per_s * times(at))
        if at > until:
            return
        yield visit(at, random.choice(source.tenants), source, random)


def visit(at: float, tenant: str, source: Source, random: Random, caller: str = "", comes_again: bool = False) -> Visit:
    prompt, output = _size(PROMPT_TOKENS, _MOST_PROMPT, random), _size(OUTPUT_TOKENS, _MOST_OUTPUT, random)
    return Visit(
        at, tenant, source.tier, prompt, output, OUTPUT_TOKENS, source.target_s, source.patience_s, 1.0, comes_again, caller
    )


def _size(mean: int, most: int, random: Random) -> int:
    return min(most, max(4, round(random.lognormvariate(math.log(mean) - _SPREAD**2 / 2, _SPREAD))))
