"""The parts of a scenario: what each key means, and what is wrong with it by itself. `scenario` puts them together."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, Self

from pydantic import Field, create_model, model_validator

from engines import figures as engine_figures
from gateway.policy.ask import Rules
from gateway.policy.limits import Limits, Tier
from serving.allocation import Shape
from serving.allocation.fleet import WHOLE
from serving.autoscaling.policy import Bounds
from serving.shape import Frozen
from serving.simulator.traffic import Seconds, SomeSeconds

MEMORY_MIB = 1024  # of a GPU: a scenario gives parts of GPUs, no memory, so any size will do
_EXAMPLE_TOKENS = (600.0, 250.0)  # prompt and answer of the calls by which kinds of GPU are compared


def _settings_of(cls: type, name: str, without: Iterable[str] = ()) -> type[Frozen]:
    """A part of the scenario that has a policy's own settings, with their defaults."""
    known: dict[str, Any] = {
        one.name: (int | None if one.default is None else type(one.default), Field(one.default, ge=0, le=10**15))
        for one in fields(cls)
        if one.name not in set(without)
    }
    return create_model(name, __base__=Frozen, **known)


def settings(part: object) -> dict[str, Any]:
    """What a policy is made with, of `rules`, `bounds` or `limits`."""
    return part.model_dump() if isinstance(part, Frozen) else {}


RulesSpec = _settings_of(Rules, "RulesSpec")
LimitsSpec = _settings_of(Limits, "LimitsSpec", without=("krw_per_month",))  # there are no prices here
BoundsSpec = _settings_of(Bounds, "BoundsSpec", without=("least", "most"))


class ReplicasSpec(Frozen):
    least: int = Field(1, ge=0)
    most: int = Field(1, ge=1, le=100_000)
    start: int | None = Field(None, ge=0, description="At the beginning, and ready; `least` if not given.")

    @property
    def first(self) -> int:
        return self.least if self.start is None else self.start

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.least <= self.first <= self.most:
            raise ValueError(f"replicas need least <= start <= most, not {self.least}, {self.first} and {self.most}")
        return self


class RunsOn(Frozen):
    """The form that a replica has on one kind of GPU, and how fast it is there."""

    kind: str
    gpus: int = Field(1, ge=1, le=64)
    part: float = Field(1.0, gt=0, le=1, description="Of the GPU, where it is one.")
    speed: float = Field(1.0, gt=0, le=1000, description="So many times as fast as the engine's figures say.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.gpus > 1 and self.part < 1:
            raise ValueError("several GPUs are whole ones; leave out part, or gpus")
        return self


class ModelSpec(Frozen):
    name: str = Field(min_length=1)
    engine: str = Field(description="The engine's figures, by their name in engines/known.")
    cold_start_s: Seconds = 60.0
    replicas: ReplicasSpec = ReplicasSpec()
    runs_on: tuple[RunsOn, ...] = Field((), description="In any order; one whole GPU of each kind if not given.")
    fails_every_s: SomeSeconds | None = Field(None, description="Mean time between failures of one replica; never if not given.")
    team: str = Field("house", description="For whom it is placed: whose fair share and reservations count.")

    @model_validator(mode="after")
    def _engine_known(self) -> Self:
        if self.engine not in engine_figures.names():
            raise ValueError(unknown("engine", self.engine, engine_figures.names()))
        return self


class Leaving(Frozen):
    """When each node of the group leaves: at these times, by chance, or both. It comes back `away_s` later."""

    at_s: tuple[Seconds, ...] = ()
    every_s: SomeSeconds | None = Field(None, description="Mean time that a node stays, by chance.")
    away_s: SomeSeconds = 300.0
    nodes: int | None = Field(None, ge=1, description="How many of the group leave at `at_s`; all if not given.")


class GpuSpec(Frozen):
    """So many machines alike."""

    name: str = Field(min_length=1)
    kind: str = Field(min_length=1)
    nodes: int = Field(1, ge=1, le=100_000)
    gpus_per_node: int = Field(8, ge=1, le=64)
    volatile: bool = Field(False, description="May leave at any minute, so nothing is promised on it.")
    leaves: Leaving | None = None


class TeamSpec(Frozen):
    name: str = Field(min_length=1)
    weight: float = Field(1.0, gt=0, le=1000)


class ReservationSpec(Frozen):
    name: str = Field(min_length=1)
    team: str
    gpus: int = Field(ge=1)
    kind: str | None = None
    begin_s: Seconds = 0.0
    end_s: SomeSeconds = 1e9


class TenantSpec(Frozen):
    """One tenant, or `count` of them who are alike, named `name`-1 and so on."""

    name: str = Field(min_length=1)
    tier: Tier = Tier.FREE
    count: int = Field(1, ge=1, le=100_000)
    share: float = Field(1.0, gt=0, le=1e6, description="Of the traffic, against the others'; of all `count` together.")
    weight: float = Field(1.0, gt=0, le=1000, description="Within the tier.")
    limits: LimitsSpec = LimitsSpec()  # type: ignore[valid-type]
    patience_s: SomeSeconds | None = None
    comes_again: bool = Field(False, description="It does what Retry-After says.")
    target_first_token_s: SomeSeconds | None = Field(None, description="The scenario's if not given.")

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,) if self.count == 1 else tuple(f"{self.name}-{number}" for number in range(1, self.count + 1))


class AutoscalingSpec(Frozen):
    policy: str = Field("daemun", description="daemun, none, or one that a benchmark brings.")
    every_s: float = Field(2.0, ge=0.1, le=3600)
    drain_s: Seconds = Field(60.0, description="For the calls of a replica that has to go.")
    bounds: BoundsSpec = BoundsSpec()  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _bounds_hold(self) -> Self:
        Bounds(**settings(self.bounds))
        return self


def node_id(group: GpuSpec, number: int) -> str:
    return f"{group.name}-{number}"


def shape_of(model: ModelSpec, form: RunsOn) -> Shape:
    """As the allocator has it. Memory follows the part; speed is that of calls of a usual size."""
    hundredths = max(1, round(form.part * WHOLE))
    figures = engine_figures.load(model.engine).scaled(form.speed)
    per_s = figures.calls_per_s(*_EXAMPLE_TOKENS) * sum(_EXAMPLE_TOKENS)
    return Shape(form.kind, form.gpus, hundredths, MEMORY_MIB * hundredths // WHOLE, per_s)


def unknown(what: str, name: str, known: list[str]) -> str:
    """A sentence for a name that there is not, with the nearest that there is."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"there is no {what} {name!r}; " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}")
