"""What Ray Serve is asked to run, one application a model; what changes from one set of settings to the next, and the way back.

A reload asks Serve for what has changed and nothing else. Serve starts replicas of the new version and ends old ones as those
are ready. A version that does not start is taken back: what ran before is asked for again, and its replicas, which Serve has
left alone, go on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ray import serve
from ray.serve import Application
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview

from serving.app import build_app
from serving.autoscaling.terms import most_replicas, replica_count
from serving.cause import cause
from serving.placement import NOTHING, Accelerators, have_room, without_room
from serving.settings import ServingSettings
from serving.spec import ModelSpec

Report = Callable[[str], None]
# What is set once for the whole cluster, in Ray's options and in the environment of every process.
FIXED = (
    "host",
    "replica_port_min",
    "replica_port_max",
    "proxy_port",
    "dashboard_host",
    "dashboard_port",
    "token_auth",
    "temp_root",
    "cpu_threads",
    "simulated_accelerators",
    "simulated_memory_gib",
)


class CannotStart(Exception):
    """No model has ever run, and one cannot be started. The message is one sentence."""


@dataclass(frozen=True, slots=True)
class Version:
    """A model with the settings under which it runs."""

    spec: ModelSpec
    settings: ServingSettings

    @property
    def count(self) -> int:
        return replica_count(self.spec, self.settings)

    def with_count(self, count: int) -> Version:
        """With so many replicas. Where the number follows what is asked it stays, and Ray lets those wait that have no room."""
        if count == self.count or (count and self.settings.autoscaling.enabled):
            return self
        return Version(self.spec, self.settings.model_copy(update={"replicas": {**self.settings.replicas, self.spec.id: count}}))

    def is_like(self, other: Version | None) -> bool:
        """Whether Serve would be asked for the same."""
        return other is not None and self._asked() == other._asked()

    def _asked(self) -> object:
        settings, model = self.settings, self.spec.id
        scaling = settings.autoscaling.model_copy(update={"least": {}, "most": {}})
        bounds = (settings.autoscaling.least.get(model), settings.autoscaling.most.get(model), self.count)
        return self.spec, scaling, bounds, settings.device, settings.drain_s, settings.surge_percent


class Serve(Protocol):
    """What is asked of Ray Serve."""

    def run(self, model: str, app: Application) -> None:
        """From now on this application, under the model's name. Does not wait."""

    def end(self, model: str) -> None:
        """Not any more. Does not wait."""


class RayServe:
    """The Ray Serve of this process's cluster."""

    def run(self, model: str, app: Application) -> None:
        serve.run_many([serve.RunTarget(app, name=model, route_prefix=f"/{model}")], wait_for_applications_running=False)

    def end(self, model: str) -> None:
        serve.delete(model, _blocking=False)


class Applications:
    """`accelerators` None: models share the CPUs. What Ray raises goes through."""

    def __init__(self, ray_serve: Serve, accelerators: Accelerators | None, report: Report) -> None:
        self._serve = ray_serve
        self._accelerators = accelerators
        self._report = report
        self._wanted: dict[str, Version] = {}
        self._asked: dict[str, Version] = {}  # those of them that have room, with as many replicas as have
        self._proven: dict[str, Version] = {}  # has run
        self._state = NOTHING
        self._waiting: list[str] = []

    def go_over_to(self, settings: ServingSettings, specs: Sequence[ModelSpec]) -> None:
        """From what is wanted to this. A model that is not in the list any more ends when its calls have.

        Raises ValueError, and then nothing has changed.
        """
        self._ask_for({spec.id: Version(spec, settings) for spec in specs})

    def look(self, status: Mapping[str, ApplicationStatusOverview]) -> Iterator[tuple[str, str]]:
        """How each application is, by name. Raises CannotStart."""
        for name, app in status.items():
            if name not in self._asked:
                continue
            if app.status is ApplicationStatus.RUNNING:
                self._proven[name] = self._asked[name]
            if app.status is ApplicationStatus.DEPLOY_FAILED:
                self._take_back(name, cause(app))
                continue
            yield name, f"{name}: {app.status.lower()} ({_states(app)})"

    def _ask_for(self, wanted: dict[str, Version]) -> None:
        """What has no room is not asked of Serve: Ray would give it the place that a replica leaves to its own successor."""
        room = have_room(_counts(wanted), self._accelerators, self._state) if self._accelerators else None
        asked = {model: version.with_count(room.fits[model]) if room else version for model, version in wanted.items()}
        asked = {model: version for model, version in asked.items() if version.count or not wanted[model].count}
        changed = [model for model, version in asked.items() if not version.is_like(self._asked.get(model))]
        built = {model: self._build(model, asked) for model in changed}
        ended = self._asked.keys() - asked.keys()
        if self._asked and not changed and not ended:
            self._report("nothing has changed for the models")
        for model in ended:
            self._end(model)
        for model, app in built.items():
            verb = "a new version, now" if model in self._asked else "starting"
            self._report(f"{model}: {verb} {asked[model].count} of {asked[model].spec.architecture}")
            self._serve.run(model, app)
        self._wanted, self._asked = wanted, asked
        if room is not None and self._accelerators is not None:
            self._state = room.state
            self._say_who_waits(without_room(_counts(wanted), room, self._accelerators))

    def _build(self, model: str, asked: Mapping[str, Version]) -> Application:
        """No replicas beyond the usual number where no accelerator has room for them: Serve would wait for it for ever."""
        version = asked[model]
        surge = version.settings.surge_percent
        if self._accelerators is not None:
            more = math.ceil(surge * version.count / 100)
            wanted = [(spec, count + more if spec.id == model else count) for spec, count in _counts(asked)]
            surge = surge if have_room(wanted, self._accelerators).fits == {spec.id: count for spec, count in wanted} else 0
        return build_app(version.spec, version.settings, self._accelerators, surge_percent=surge)

    def _end(self, model: str) -> None:
        self._report(f"{model}: ending")
        self._proven.pop(model, None)
        self._serve.end(model)

    def _take_back(self, model: str, why: str) -> None:
        """The new version of this model does not start. Raises CannotStart."""
        before = self._proven.get(model)
        if before is not None and before is not self._asked[model]:
            self._report(f"{model}: the new version cannot be started, the one before stays: {why}")
            self._asked[model] = self._wanted[model] = before
            self._serve.run(model, self._build(model, self._asked))
        elif self._proven.keys() - {model}:
            self._report(f"{model} cannot be started and is left out, the other models stay: {why}")
            self._ask_for({name: version for name, version in self._wanted.items() if name != model})
        else:
            raise CannotStart(f"{model} cannot be started: {why}")

    def _say_who_waits(self, waiting: list[str]) -> None:
        for sentence in waiting:
            if sentence not in self._waiting:
                self._report(sentence)
        self._waiting = waiting


def changes_at_next_start(before: ServingSettings, after: ServingSettings) -> list[str]:
    """Settings that a reload cannot change."""
    return [name for name in FIXED if getattr(before, name) != getattr(after, name)]


def most_cpus(specs: Sequence[ModelSpec], settings: ServingSettings) -> float:
    """CPUs that all replicas may want at once, those of a reload included."""
    most = [(spec, most_replicas(spec, settings)) for spec in specs]
    return math.fsum([spec.cpus * (n + math.ceil(settings.surge_percent * n / 100)) for spec, n in most])


def _counts(asked: Mapping[str, Version]) -> list[tuple[ModelSpec, int]]:
    return [(version.spec, version.count) for version in asked.values()]


def _states(app: ApplicationStatusOverview) -> str:
    states = (
        f"{count} {state.lower()}"
        for deployment in app.deployments.values()
        for state, count in deployment.replica_states.items()
        if count
    )
    return ", ".join(states) or "no replicas"
