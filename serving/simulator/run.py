"""A scenario from its beginning to its end, in virtual time, on one heap. Pure but for the traces that a scenario names: the same
scenario, seed and autoscaler give the same result to the byte.

Visits come in the order of their times and are not on the heap; all else is. Of a visit and something else at the same moment,
the latter happens first, so that places that get free are free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from random import Random

import msgspec

from engines import figures as engine_figures
from gateway.policy.ask import Rules
from gateway.policy.limits import Limits
from serving.autoscaling.demand import read_demand
from serving.simulator.agenda import Agenda
from serving.simulator.autoscaler import Autoscaler, MakeAutoscaler, OwnPolicy, Signal, Steady, Subject
from serving.simulator.crowd import tiers, visits
from serving.simulator.fleet import Fleet
from serving.simulator.parts import ModelSpec, settings, shape_of
from serving.simulator.purse import Purses
from serving.simulator.replica import Call
from serving.simulator.result import Calls, ModelSeries, Result
from serving.simulator.scenario import Scenario, ScenarioError
from serving.simulator.service import Service
from serving.simulator.visit import Visit

_NAN = math.nan
Progress = Callable[[float, Result], None]


class Run:
    """`coming`: in the order of time; the scenario's own visits if not given. `make`: the scenario's own policy if not given."""

    def __init__(
        self,
        scenario: Scenario,
        seed: int | None = None,
        coming: Iterable[Visit] | None = None,
        make: MakeAutoscaler | None = None,
    ) -> None:
        self.scenario = scenario
        self.seed = scenario.seed if seed is None else seed
        self.agenda = Agenda()
        self.result = Result(scenario.name, self.seed, scenario.duration_s, tuple(model.name for model in scenario.models))
        self.fleet = Fleet(scenario, self.agenda, f"{self.seed}/fleet")
        self._coming = iter(visits(scenario, self.seed) if coming is None else coming)
        self._numbers = {model: number for number, model in enumerate(self.result.models)}
        self._tenants: dict[str, int] = {}
        self._every_s = scenario.autoscaling.every_s
        self._sample_s = scenario.sample_s or max(1.0, scenario.duration_s / 500.0)
        made = make or policy(scenario)
        self._autoscalers: dict[str, Autoscaler] = {model.name: made(subject(scenario, model)) for model in scenario.models}
        self._services = self._open()
        self.result.series = {model: ModelSeries() for model in self.result.models}

    def run(self, progress: Progress | None = None) -> Result:
        """Until the scenario's end, when all that has not ended is under way. Once only."""
        agenda, end = self.agenda, self.scenario.duration_s
        self.fleet.begin()
        agenda.at(self._every_s, self._decide)
        agenda.at(0.0, self._sample, progress)
        for visit in self._coming:
            if visit.at > end:
                break
            if agenda.due[0][0] <= visit.at:
                agenda.until(visit.at)
            agenda.now = visit.at
            self._arrive(visit)
        agenda.until(end)
        self._note()
        result = self.result
        result.lost, result.broke = dict(self.fleet.lost), dict(self.fleet.broke)
        result.preemptions = self.fleet.preemptions()
        result.events = agenda.events + len(result.calls)
        return result

    def _open(self) -> dict[str, Service]:
        scenario, services = self.scenario, self.fleet.services
        rules = Rules(**settings(scenario.rules))
        limits = {name: Limits(**settings(tenant.limits)) for tenant in scenario.tenants for name in tenant.names}
        purses = Purses(limits, scenario.clock_s)
        for name, tier in tiers(scenario).items():
            self._tenants[name] = len(self._tenants)
            self.result.tenants.append(name)
            self.result.tiers.append(tier.value)
        for model in self.result.models:
            random = Random(f"{self.seed}/{model}")  # noqa: S311 - a simulation
            services[model] = Service(model, rules, self.agenda, purses, self.result.calls, random, self.fleet.emptied)
        return services

    def _arrive(self, visit: Visit) -> None:
        service = self._services[visit.model]
        service.tally.came += 1
        service.come(Call(visit, self._enter(visit)))

    def _enter(self, visit: Visit) -> int:
        """A new row of the result."""
        calls: Calls = self.result.calls
        row = len(calls.came)
        tenant = self._tenants.get(visit.tenant)
        if tenant is None:
            tenant = self._tenants[visit.tenant] = len(self._tenants)
            self.result.tenants.append(visit.tenant)
            self.result.tiers.append(visit.tier.value)
        calls.came.append(visit.at)
        calls.last_came.append(visit.at)
        calls.started.append(_NAN)
        calls.first.append(_NAN)
        calls.ended.append(_NAN)
        calls.target_s.append(visit.target_s)
        calls.told_s.append(_NAN)
        calls.model.append(self._numbers[visit.model])
        calls.tenant.append(tenant)
        calls.prompt_tokens.append(visit.prompt_tokens)
        calls.output_tokens.append(0)
        calls.turned.append(0)
        calls.resumed.append(0)
        calls.end.append(0)
        return row

    # Deciding

    def _decide(self, _: object) -> None:
        now = self.agenda.now
        for model, autoscaler in self._autoscalers.items():
            self.fleet.want(model, autoscaler.decide(self.signal(model), self.fleet.current(model), now))
        self.fleet.settle()
        self.agenda.at(now + self._every_s, self._decide)

    def signal(self, model: str) -> Signal:
        """What the gateway says of it now, as `GET /internal/demand` has it and the autoscaler reads it."""
        service, now = self._services[model], self.agenda.now
        asked = service.room.demand(now)
        ready, starting = len(service.ready), service.starting
        told = {
            "tiers": {tier.value: msgspec.to_builtins(asked.tiers[tier]) for tier in asked.tiers},
            "replicas": {"ready": ready, "starting": starting},
            "arrivals_per_s": asked.arrivals_per_s,
            "arrival_tokens_per_s": asked.arrival_tokens_per_s,
            "drain_tokens_per_s": asked.drain_tokens_per_s,
            "rejections_per_s": asked.rejections_per_s,
            "promised": asked.promised,
        }
        return Signal(
            demand=read_demand(msgspec.json.encode({"models": {model: told}}), model, now),
            waiting=service.room.waiting,
            running=service.room.running,
            ready=ready,
            starting=starting,
            places=service.places,
            arrivals_per_s=asked.arrivals_per_s,
            rejections_per_s=asked.rejections_per_s,
            expected_wait_s=asked.expected_wait_s,
        )

    # Looking on

    def _sample(self, progress: Progress | None) -> None:
        self._note()
        self.agenda.at(self.agenda.now + self._sample_s, self._sample, progress)
        if progress is not None:
            progress(self.agenda.now, self.result)

    def _note(self) -> None:
        """A point of the series; none where there is one of this moment."""
        now, result, fleet = self.agenda.now, self.result, self.fleet
        if result.at and result.at[-1] == now:
            return
        result.at.append(now)
        for model, series in result.series.items():
            service = self._services[model]
            tally = service.tally
            series.waiting.append(service.room.waiting)
            series.running.append(service.room.running)
            series.ready.append(len(service.ready))
            series.starting.append(service.starting)
            series.draining.append(fleet.draining[model])
            series.wanted.append(fleet.wanted[model])
            series.refused.append(fleet.refused[model])
            series.came.append(tally.came)
            series.turned_away.append(tally.turned_away)
            series.evicted.append(tally.evicted)
            series.over_limit.append(tally.over_limit)
            series.failed.append(tally.failed)
            series.served.append(tally.served)
            series.tokens.append(tally.tokens)
            series.gpu_s.append(fleet.holding[model].gpu_s(now))


def simulate(scenario: Scenario, seed: int | None = None, make: MakeAutoscaler | None = None) -> Result:
    """Raises ScenarioError for a policy that there is not, UnreadableTrace."""
    return Run(scenario, seed, make=make).run()


def policy(scenario: Scenario) -> MakeAutoscaler:
    """The one that the scenario names. Raises ScenarioError."""
    asked = scenario.autoscaling
    if asked.policy == "none":
        return Steady
    if asked.policy == "daemun":
        return partial(OwnPolicy, bounds=settings(asked.bounds))
    raise ScenarioError(f"autoscaling.policy: there is no policy {asked.policy!r}; there are daemun and none")


def subject(scenario: Scenario, model: ModelSpec) -> Subject:
    """What an autoscaler is told of its model before it begins: by the kind of GPU on which it is fastest."""
    figures = engine_figures.load(model.engine)
    best = max(scenario.forms(model), key=lambda form: form.speed)
    return Subject(
        model=model.name,
        least=model.replicas.least,
        most=model.replicas.most,
        start=model.replicas.first,
        places=figures.max_num_seqs,
        tokens_per_s=shape_of(model, best).tokens_per_s,
        cold_start_s=model.cold_start_s,
        target_first_token_s=scenario.target_first_token_s,
    )
