"""How long prompts and answers are: by a lognormal law, or as they were in a trace. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol


class Sizes(Protocol):
    """Where sizes come from."""

    def draw(self, random: Random) -> tuple[int, int]:
        """Tokens of a prompt and of its answer, each at least 1."""
        ...


class Sized(Protocol):
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Lognormal:
    """`mean`: before the longest are cut off at `most`; `spread`: standard deviation of the logarithm. Raises ValueError."""

    mean: float
    spread: float
    most: int
    least: int = 1

    def __post_init__(self) -> None:
        if not (1 <= self.least <= self.most and 0.0 < self.mean < math.inf and 0.0 <= self.spread < math.inf):
            raise ValueError(
                "sizes need mean > 0, spread >= 0 and 1 <= least <= most, "
                f"not mean {self.mean:g}, spread {self.spread:g}, least {self.least}, most {self.most}"
            )

    def draw(self, random: Random) -> int:
        mean_log = math.log(self.mean) - self.spread * self.spread / 2.0
        drawn = math.exp(min(mean_log + self.spread * random.gauss(0.0, 1.0), 700.0))
        return min(self.most, max(self.least, round(drawn)))


@dataclass(frozen=True, slots=True)
class Independent:
    """Prompt and answer do not know of each other."""

    prompt: Lognormal
    output: Lognormal

    def draw(self, random: Random) -> tuple[int, int]:
        return self.prompt.draw(random), self.output.draw(random)


@dataclass(frozen=True, slots=True)
class Sampled:
    """Any call of a trace, prompt and answer together, so that long questions keep the answers they had. At least one call."""

    calls: Sequence[Sized]

    def draw(self, random: Random) -> tuple[int, int]:
        call = random.choice(self.calls)
        return call.prompt_tokens, call.output_tokens
