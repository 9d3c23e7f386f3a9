"""What is simulated: one YAML file, read as a whole or refused with one sentence that names the place. No randomness, no time."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, create_model, model_validator

from engines import figures as engine_figures
from gateway.policy.ask import Rules
from gateway.policy.limits import Limits, Tier
from serving.allocation import BadInput, Facts, Kind, Node, Reservation, Shape
from serving.allocation import Model as Placeable
from serving.allocation import Team as PlacingTeam
from serving.allocation.check import check
from serving.allocation.fleet import WHOLE
from serving.allocation.replica import State
from serving.autoscaling.policy import Bounds
from serving.place import complaint, line_of
from serving.shape import Frozen
from serving.simulator.traffic import Seconds, SomeSeconds, Traffic

FOLDER = Path(__file__).with_name("scenarios")
_MEMORY_MIB = 1024  # of a GPU: a scenario gives parts of GPUs, no memory, so any size will do
_EXAMPLE_TOKENS = (600.0, 250.0)  # prompt and answer of the calls by which kinds of GPU are compared


class ScenarioError(Exception):
    """The scenario cannot be used. Its message is one sentence that names the place."""


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
            raise ValueError(_unknown("engine", self.engine, engine_figures.names()))
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


class Scenario(Frozen):
    name: str = Field(min_length=1)
    about: str = Field("", description="One sentence on what it shows.")
    seed: int = Field(1, ge=0)
    duration_s: float = Field(gt=0, le=400 * 86_400)
    sample_s: float | None = Field(None, gt=0, description="Between two points of the series; a 500th of the run if not given.")
    clock_s: Seconds = Field(0.0, description="The time of day at the beginning, in seconds from midnight in Seoul.")
    gpus: tuple[GpuSpec, ...] = Field((), description="As many of one kind as the models may want if not given.")
    models: tuple[ModelSpec, ...] = Field(min_length=1)
    teams: tuple[TeamSpec, ...] = ()
    reservations: tuple[ReservationSpec, ...] = ()
    tenants: tuple[TenantSpec, ...] = (TenantSpec(name="app"),)
    traffic: tuple[Traffic, ...] = ()
    rules: RulesSpec = RulesSpec()  # type: ignore[valid-type]
    autoscaling: AutoscalingSpec = AutoscalingSpec()
    target_first_token_s: SomeSeconds = 2.0
    version: Literal[1] = 1

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        models = _alone("models", [model.name for model in self.models])
        _alone("tenants", [name for tenant in self.tenants for name in tenant.names])
        kinds = list(dict.fromkeys(group.kind for group in self.kinds_of_gpus()))
        for at, model in enumerate(self.models):
            _alone(f"models.{at}.runs_on", [form.kind for form in model.runs_on])
            for form_at, form in enumerate(model.runs_on):
                _known(f"models.{at}.runs_on.{form_at}.kind", "kind of GPU", form.kind, kinds)
            self._check_floor(f"models.{at}.replicas.least", model)
        for at, source in enumerate(self.traffic):
            if source.model or len(models) > 1:
                _known(f"traffic.{at}.model", "model", source.model, models)
            for name in source.tenants:
                _known(f"traffic.{at}.tenants", "tenant", name, [tenant.name for tenant in self.tenants])
        for at, reservation in enumerate(self.reservations):
            _known(f"reservations.{at}.team", "team", reservation.team, [team.id for team in self.facts().teams])
        try:
            check(self.facts(), State(), 0.0)
        except BadInput as problem:
            raise ValueError(str(problem).rstrip(".")) from problem
        return self

    def _check_floor(self, place: str, model: ModelSpec) -> None:
        """What is promised, is promised on nodes that stay."""
        kinds = [form.kind for form in self.forms(model)]
        if model.replicas.least and all(group.volatile for group in self.kinds_of_gpus() if group.kind in kinds):
            raise ValueError(
                f"{place}: nothing is promised on nodes that may leave; make it 0, or add a group that is not volatile"
            )

    def kinds_of_gpus(self) -> tuple[GpuSpec, ...]:
        """The groups of machines; where none are given, as many as all models at their most need."""
        if self.gpus:
            return self.gpus
        each = max((form.gpus for model in self.models for form in model.runs_on), default=1)
        kind = next((form.kind for model in self.models for form in model.runs_on), "GPU")
        return (GpuSpec(name="gpu", kind=kind, nodes=sum(model.replicas.most for model in self.models), gpus_per_node=each),)

    def facts(self) -> Facts:
        """What the allocator is told at the beginning: all nodes are there, and nobody claims anything yet."""
        groups = self.kinds_of_gpus()
        kinds = tuple(Kind(name, _MEMORY_MIB) for name in dict.fromkeys(group.kind for group in groups))
        nodes = tuple(
            Node(node_id(group, number), group.kind, group.gpus_per_node, group.volatile)
            for group in groups
            for number in range(1, group.nodes + 1)
        )
        models = tuple(
            Placeable(
                model.name,
                tuple(shape_of(model, form) for form in self.forms(model)),
                floor=model.replicas.least,
                ceiling=model.replicas.most,
            )
            for model in self.models
        )
        weights = {model.team: 1.0 for model in self.models} | {team.name: team.weight for team in self.teams}
        return Facts(
            kinds=kinds,
            nodes=nodes,
            models=models,
            teams=tuple(PlacingTeam(name, weight) for name, weight in weights.items()),
            reservations=tuple(
                Reservation(one.name, one.team, one.kind, one.gpus, one.begin_s, one.end_s) for one in self.reservations
            ),
            drain_s=self.autoscaling.drain_s,
        )

    def forms(self, model: ModelSpec) -> tuple[RunsOn, ...]:
        if model.runs_on:
            return model.runs_on
        return tuple(RunsOn(kind=kind) for kind in dict.fromkeys(group.kind for group in self.kinds_of_gpus()))


def node_id(group: GpuSpec, number: int) -> str:
    return f"{group.name}-{number}"


def shape_of(model: ModelSpec, form: RunsOn) -> Shape:
    """As the allocator has it. Memory follows the part; speed is that of calls of a usual size."""
    hundredths = max(1, round(form.part * WHOLE))
    figures = engine_figures.load(model.engine).scaled(form.speed)
    per_s = figures.calls_per_s(*_EXAMPLE_TOKENS) * sum(_EXAMPLE_TOKENS)
    return Shape(form.kind, form.gpus, hundredths, _MEMORY_MIB * hundredths // WHOLE, per_s)


def names() -> list[str]:
    """The scenarios that come with daemun."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_scenario(path: Path) -> Scenario:
    """A file, or one that comes with daemun by its name. Raises ScenarioError."""
    if not path.suffix and not path.exists():
        if str(path) not in names():
            raise ScenarioError(_unknown("scenario", str(path), names()))
        path = FOLDER / f"{path}.yaml"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path} cannot be read: {error}") from error
    return parse_scenario(text, str(path), path.parent)


def parse_scenario(text: str, origin: str, folder: Path = Path()) -> Scenario:
    """`folder`: where the traces' paths begin. Raises ScenarioError."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ScenarioError(f"{origin} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ScenarioError(f"{origin} is no scenario: it must have name, duration_s, models and traffic")
    try:
        scenario = Scenario.model_validate(content)
    except ValidationError as error:
        raise ScenarioError(f"{origin}: {complaint(Scenario, error, text)}") from error
    for at, source in enumerate(scenario.traffic):
        if source.kind == "trace" and not (folder / source.path).is_file():
            line = line_of(text, ("traffic", at, "path"))
            raise ScenarioError(f"{origin}: line {line}: traffic.{at}.path: there is no file {folder / source.path}")
    traffic = tuple(
        source.model_copy(update={"path": folder / source.path}) if source.kind == "trace" else source
        for source in scenario.traffic
    )
    return scenario.model_copy(update={"traffic": traffic})


def _alone(place: str, given: list[str]) -> list[str]:
    for at, name in enumerate(given):
        if name in given[:at]:
            raise ValueError(f"{place} has {name!r} twice; leave one of them out")
    return given


def _known(place: str, what: str, name: str, known: list[str]) -> None:
    if name not in known:
        raise ValueError(f"{place}: {_unknown(what, name, known)}")


def _unknown(what: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"there is no {what} {name!r}; " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}")
