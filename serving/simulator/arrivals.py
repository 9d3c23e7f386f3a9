"""When calls come: by chance, in bursts, over a day, on a launch day, or as they came once. Pure: a seeded `Random` is handed in.

Every process yields times in seconds, in order, from `begin` and before `until`. What the calls are like is said by `sizes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Protocol, TypeVar

Rate = Callable[[float], float]  # calls a second at a moment

_DAY_S, _HOUR_S = 86_400.0, 3600.0
# Calls by the hour of the Korean day, as a part of the mean hour: an assumption, not a measurement. Least before dawn, level over
# the working day with a dent at lunch, and most in the evening at 22, when people are home.
_KOREAN_HOURS = (
    *(0.92, 0.58, 0.36, 0.24, 0.19, 0.21, 0.34, 0.58, 0.84, 1.06, 1.15, 1.13),
    *(0.98, 1.10, 1.17, 1.17, 1.15, 1.12, 1.08, 1.22, 1.48, 1.72, 1.80, 1.41),
)


class Timed(Protocol):
    @property
    def at(self) -> float: ...


T = TypeVar("T", bound=Timed)


def poisson(per_s: float, until: float, random: Random, begin: float = 0.0) -> Iterator[float]:
    """Calls of many people who do not know of each other."""
    return gamma(per_s, 1.0, until, random, begin)


def gamma(per_s: float, variation: float, until: float, random: Random, begin: float = 0.0) -> Iterator[float]:
    """`variation`: standard deviation of the gaps, of their mean; above 1 calls come in bursts, below 1 more evenly than by
    chance. Raises ValueError.
    """
    if not (0.0 < per_s < math.inf and 0.0 < variation < math.inf):
        raise ValueError(f"calls a second and their variation must be above 0, not {per_s:g} and {variation:g}")
    shape = 1.0 / (variation * variation)
    return _gaps(shape, 1.0 / (shape * per_s), until, random, begin)


def _gaps(shape: float, scale: float, until: float, random: Random, begin: float) -> Iterator[float]:
    at = begin + random.gammavariate(shape, scale)
    while at < until:
        yield at
        at += random.gammavariate(shape, scale)


def varying(rate: Rate, most_per_s: float, until: float, random: Random, begin: float = 0.0) -> Iterator[float]:
    """Calls by chance whose rate changes with time: those of the highest rate, thinned (Lewis and Shedler, 1979).

    Raises ValueError where the rate is above `most_per_s` or below 0.
    """
    for at in poisson(most_per_s, until, random, begin):
        now = rate(at)
        if not 0.0 <= now <= most_per_s * (1.0 + 1e-9):
            raise ValueError(f"at {at:g} s the rate is {now:g} calls a second, which is not from 0 to {most_per_s:g}")
        if random.random() * most_per_s < now:
            yield at


def korean_day(mean_per_s: float, clock_s: float = 0.0) -> Rate:
    """The rate over Korean days with this mean, an assumed shape. `clock_s`: the time of day at 0 s, from midnight in Seoul."""
    unit = mean_per_s * len(_KOREAN_HOURS) / math.fsum(_KOREAN_HOURS)

    def rate(at: float) -> float:
        hours = (at + clock_s) % _DAY_S / _HOUR_S
        hour = int(hours) % 24
        here, there = _KOREAN_HOURS[hour], _KOREAN_HOURS[(hour + 1) % 24]
        return unit * (here + (there - here) * (hours - int(hours)))

    return rate


def korean_peak(mean_per_s: float) -> float:
    """The highest rate of such a day."""
    return mean_per_s * max(_KOREAN_HOURS) * len(_KOREAN_HOURS) / math.fsum(_KOREAN_HOURS)


def surge(users: int, within_s: float, random: Random, begin: float = 0.0) -> list[float]:
    """A launch day: so many users, each at a moment of his own within so many seconds. Whoever is turned away comes again."""
    return sorted(begin + random.random() * within_s for _ in range(users))


def replay(calls: Sequence[T], random: Random, *, times: float = 1.0, speed: float = 1.0) -> Iterator[tuple[float, T]]:
    """A trace again: when each call comes, and which it was. Raises ValueError.

    times   as many calls: of 2.5, half of them come three times. A copy comes at a random moment before the trace's next call, so
            that the bursts stay where they were; below 1, calls are left out at random
    speed   as fast: 2 plays an hour in half an hour
    """
    if not (0.0 < times < math.inf and 0.0 < speed < math.inf):
        raise ValueError(f"a trace's times and speed must be above 0, not {times:g} and {speed:g}")
    for index, call in enumerate(calls):
        gap = calls[index + 1].at - call.at if index + 1 < len(calls) else 0.0
        copies = int(times) + (random.random() < times - int(times))
        moments = sorted(random.random() * gap for _ in range(copies - 1))
        yield from ((((call.at + after) / speed), call) for after in (0.0, *moments)[:copies])
