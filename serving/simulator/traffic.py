"""What may stand under `traffic` in a scenario: who calls, how often, for how much. `crowd` makes visits of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from serving.shape import Frozen

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
SomeSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PerSecond = Annotated[float, Field(gt=0, le=1e6)]


class TokensSpec(Frozen):
    """A lognormal law, cut off at both ends."""

    mean: float = Field(gt=0, le=1e6, description="Before the longest are cut off.")
    spread: float = Field(0.8, ge=0, le=4, description="Standard deviation of the logarithm; 0: all are alike.")
    least: int = Field(1, ge=1)
    most: int = Field(8192, ge=1)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"tokens need least <= most, not {self.least} and {self.most}")
        return self


class Source(Frozen):
    """What all kinds of traffic have in common."""

    model: str = Field("", description="The model that is called; may be left out where there is only one.")
    tenants: tuple[str, ...] = Field((), description="Who calls, by their shares; all tenants if not given.")
    prompt_tokens: TokensSpec = TokensSpec(mean=600, spread=0.9)
    output_tokens: TokensSpec = TokensSpec(mean=250, spread=0.7)
    begin_s: Seconds = Field(0.0, description="From when on.")
    end_s: SomeSeconds | None = Field(None, description="Until when; the end of the run if not given.")


class Poisson(Source):
    kind: Literal["poisson"]
    per_s: PerSecond


class Gamma(Source):
    kind: Literal["gamma"]
    per_s: PerSecond
    variation: float = Field(gt=0, le=100, description="Standard deviation of the gaps, of their mean: above 1 in bursts.")


class Day(Source):
    kind: Literal["day"]
    per_s: PerSecond = Field(description="The mean over a day. The scenario's `clock_s` says what time of it it is.")


class Surge(Source):
    kind: Literal["surge"]
    users: int = Field(gt=0, le=100_000_000, description="Each of whom comes once, and again when told.")
    within_s: SomeSeconds


class Trace(Source):
    kind: Literal["trace"]
    path: Path = Field(description="A CSV file in Azure's or BurstGPT's format; from the scenario's folder on.")
    times: float = Field(1.0, gt=0, le=1e6, description="So many times as many calls.")
    speed: float = Field(1.0, gt=0, le=1e6, description="Played so many times as fast.")


Traffic = Annotated[Poisson | Gamma | Day | Surge | Trace, Field(discriminator="kind")]
