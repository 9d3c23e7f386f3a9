"""What is simulated: one YAML file, read as a whole or refused with one sentence that names the place. No randomness, no time."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from serving.allocation import BadInput, Facts, Kind, Node, Reservation
from serving.allocation import Model as Placeable
from serving.allocation import Team as PlacingTeam
from serving.allocation.check import check
from serving.allocation.replica import State
from serving.place import complaint, line_of
from serving.shape import Frozen
from serving.simulator.parts import (
    MEMORY_MIB,
    AutoscalingSpec,
    GpuSpec,
    ModelSpec,
    ReservationSpec,
    RulesSpec,
    RunsOn,
    TeamSpec,
    TenantSpec,
    node_id,
    shape_of,
    unknown,
)
from serving.simulator.traffic import Seconds, SomeSeconds, Traffic

FOLDER = Path(__file__).with_name("scenarios")


class ScenarioError(Exception):
    """The scenario cannot be used. Its message is one sentence that names the place."""


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
        kinds = tuple(Kind(name, MEMORY_MIB) for name in dict.fromkeys(group.kind for group in groups))
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


def names() -> list[str]:
    """The scenarios that come with daemun."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_scenario(path: Path) -> Scenario:
    """A file, or one that comes with daemun by its name. Raises ScenarioError."""
    if not path.suffix and not path.exists():
        if str(path) not in names():
            raise ScenarioError(unknown("scenario", str(path), names()))
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
        raise ValueError(f"{place}: {unknown(what, name, known)}")
