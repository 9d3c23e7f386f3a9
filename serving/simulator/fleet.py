"""The GPUs in virtual time: the allocator says which replica runs where, this carries it out. Nodes leave and come back, replicas
start cold, fail, drain and go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from random import Random

from engines import figures as engine_figures
from engines.model import EngineFigures
from serving.allocation import Claim, Phase, Plan, State, allocate
from serving.allocation import Replica as Placed
from serving.simulator.agenda import Agenda
from serving.simulator.parts import Leaving, ModelSpec, node_id
from serving.simulator.replica import Life, Replica
from serving.simulator.scenario import Scenario
from serving.simulator.service import Service

_WHOLE = 100.0


class Holding:
    """GPUs that one model's replicas hold, and for how long they have."""

    __slots__ = ("_gpu_s", "_hundredths", "_since")

    def __init__(self) -> None:
        self._hundredths = 0
        self._gpu_s = self._since = 0.0

    def change(self, hundredths: int, now: float) -> None:
        self._gpu_s, self._since = self.gpu_s(now), now
        self._hundredths += hundredths

    def gpu_s(self, now: float) -> float:
        return self._gpu_s + self._hundredths / _WHOLE * (now - self._since)


class Fleet:
    """`services` by model. What is wanted is told by `want`; the allocator is asked when that has changed, or the nodes have."""

    def __init__(self, scenario: Scenario, agenda: Agenda, seed: str) -> None:
        self.services: dict[str, Service] = {}
        self.wanted = {model.name: model.replicas.first for model in scenario.models}
        self.refused = dict.fromkeys(self.wanted, 0)
        self.lost = dict.fromkeys(self.wanted, 0)
        self.broke = dict.fromkeys(self.wanted, 0)
        self.holding = {model.name: Holding() for model in scenario.models}
        self.draining = dict.fromkeys(self.wanted, 0)
        self.plans = 0
        self._agenda = agenda
        self._models: Mapping[str, ModelSpec] = {model.name: model for model in scenario.models}
        self._figures: dict[tuple[str, str], EngineFigures] = {
            (model.name, form.kind): engine_figures.load(model.engine).scaled(form.speed)
            for model in scenario.models
            for form in scenario.forms(model)
        }
        self._facts = scenario.facts()
        self._away: set[str] = set()
        self._state = State()
        self._live: dict[str, Replica] = {}
        self._changed = True
        self._failures = Random(f"{seed}/failures")  # noqa: S311 - a simulation
        for group in scenario.kinds_of_gpus():
            if group.leaves is not None:
                for number in range(1, group.nodes + 1):
                    self._note_leaving(group.leaves, node_id(group, number), number, seed)

    def want(self, model: str, replicas: int) -> None:
        if replicas != self.wanted[model]:
            self.wanted[model] = replicas
            self._changed = True

    def current(self, model: str) -> int:
        """The model's replicas that are there or on their way."""
        return len(self.services[model].ready) + self.services[model].starting

    def begin(self) -> None:
        """The replicas of the beginning are ready at once."""
        self._plan()
        for replica in self._live.values():
            if replica.life is Life.STARTING:
                self._be_ready(replica)
        for service in self.services.values():
            service.ready = [one for one in self._live.values() if one.model == service.model and one.life is Life.READY]
            service.starting = 0
            service.resize()

    def settle(self) -> None:
        """Ask the allocator, if anything has changed that it should know."""
        if self._changed:
            self._plan()

    # The plan

    def _plan(self) -> None:
        self._changed = False
        self.plans += 1
        now = self._agenda.now
        nodes = [
            replace(node, up=False) if node.id in self._away else node
            for node in self._facts.nodes
            if not (node.volatile and node.id in self._away)
        ]
        claims = tuple(Claim(self._models[model].team, model, wanted) for model, wanted in self.wanted.items())
        plan = allocate(replace(self._facts, nodes=tuple(nodes), claims=claims), self._state, now)
        self._state = plan.state
        self._carry_out(plan)

    def _carry_out(self, plan: Plan) -> None:
        there = {placed.id for placed in plan.replicas}
        for id_ in [id_ for id_ in self._live if id_ not in there]:
            self._lose(self._live[id_])
        starting: dict[str, int] = dict.fromkeys(self.wanted, 0)
        for placed in plan.replicas:
            replica = self._live.get(placed.id)
            if replica is None and placed.phase is Phase.RUNNING:
                self._start(placed)
                starting[placed.model] += 1
            elif replica is not None and placed.phase is Phase.DRAINING and replica.life is not Life.DRAINING:
                self._drain(replica, placed.until if placed.until is not None else self._agenda.now)
        placed_of = Counter(placed.model for placed in plan.replicas if placed.phase is not Phase.DRAINING)
        self.refused = {model: max(0, wanted - placed_of[model]) for model, wanted in self.wanted.items()}
        for model, count in starting.items():
            if count:
                self.services[model].starting += count
                self.services[model].resize()
        ends = [placed.until for placed in plan.replicas if placed.phase is Phase.PROMISED and placed.until is not None]
        if ends:
            self._agenda.at(max(min(ends), self._agenda.now), self._look_again)

    def _look_again(self, _: object) -> None:
        """A place that was promised is free, or will be."""
        self._changed = True
        self._plan()

    # Replicas

    def _start(self, placed: Placed) -> None:
        figures = self._figures[placed.model, placed.shape.kind]
        replica = Replica(placed.id, placed.model, placed.node, figures, placed.shape.size)
        self._live[placed.id] = replica
        self.holding[placed.model].change(replica.hundredths, self._agenda.now)
        self._start_cold(replica)

    def _start_cold(self, replica: Replica) -> None:
        start = replica.start()
        ready_at = self._agenda.now + self._models[replica.model].cold_start_s
        self._agenda.at(ready_at, self._is_warm, (replica, start))

    def _is_warm(self, of: tuple[Replica, int]) -> None:
        replica, start = of
        if replica.life is Life.STARTING and replica.starts == start:
            self.services[replica.model].starting -= 1
            self._be_ready(replica)
            self.services[replica.model].add(replica)

    def _be_ready(self, replica: Replica) -> None:
        replica.life = Life.READY
        every_s = self._models[replica.model].fails_every_s
        if every_s is not None:
            fails_at = self._agenda.now + self._failures.expovariate(1.0 / every_s)
            self._agenda.at(fails_at, self._fail, (replica, replica.starts))

    def _fail(self, of: tuple[Replica, int]) -> None:
        """It starts anew where it is, unless it was to go anyway."""
        replica, start = of
        if replica.starts != start or replica.life not in (Life.READY, Life.DRAINING):
            return
        self.broke[replica.model] += 1
        if replica.life is Life.DRAINING:
            self._end(replica)
            return
        service = self.services[replica.model]
        replica.life = Life.STARTING
        service.starting += 1
        service.lose(replica)
        self._start_cold(replica)

    def _drain(self, replica: Replica, until: float) -> None:
        was, replica.life = replica.life, Life.DRAINING
        service = self.services[replica.model]
        self.draining[replica.model] += 1
        if was is Life.STARTING:
            service.starting -= 1
            service.resize()
        else:
            service.remove(replica)
        if replica.calls:
            self._agenda.at(until, self._time_is_up, (replica, replica.starts))
        else:
            self.emptied(replica)

    def _time_is_up(self, of: tuple[Replica, int]) -> None:
        replica, start = of
        if replica.life is Life.DRAINING and replica.starts == start:
            self._end(replica)

    def emptied(self, replica: Replica) -> None:
        """One that drains has answered its last call."""
        self._end(replica)

    def _lose(self, replica: Replica) -> None:
        """Its node has left."""
        if replica.life is not Life.DRAINING:
            self.lost[replica.model] += 1
        self._end(replica)

    def _end(self, replica: Replica) -> None:
        """It is gone, and its GPUs are free. Whoever waits for them is told soon."""
        service, was = self.services[replica.model], replica.life
        if was is Life.GONE:
            return
        replica.life = Life.GONE
        del self._live[replica.id]
        self.holding[replica.model].change(-replica.hundredths, self._agenda.now)
        self._state = replace(self._state, replicas=tuple(one for one in self._state.replicas if one.id != replica.id))
        waited_for = self.refused[replica.model] or any(one.phase is Phase.PROMISED for one in self._state.replicas)
        self._changed = self._changed or was is not Life.DRAINING or bool(waited_for)
        if was is Life.DRAINING:
            self.draining[replica.model] -= 1
        if was is Life.STARTING:
            service.starting -= 1
            service.resize()
        else:
            service.lose(replica)

    # Nodes

    def _note_leaving(self, leaves: Leaving, node: str, number: int, seed: str) -> None:
        random = Random(f"{seed}/{node}")  # noqa: S311 - each node its own, so that what is done about it changes nothing
        if leaves.nodes is None or number <= leaves.nodes:
            for at in leaves.at_s:
                self._agenda.at(at, self._node_leaves, (node, leaves, None))
        if leaves.every_s is not None:
            self._agenda.at(random.expovariate(1.0 / leaves.every_s), self._node_leaves, (node, leaves, random))

    def _node_leaves(self, of: tuple[str, Leaving, Random | None]) -> None:
        node, leaves, random = of
        if random is not None and leaves.every_s is not None:
            stays_s = random.expovariate(1.0 / leaves.every_s)
            self._agenda.at(self._agenda.now + leaves.away_s + stays_s, self._node_leaves, of)
        if node in self._away:
            return
        self._away.add(node)
        self._agenda.at(self._agenda.now + leaves.away_s, self._node_returns, node)
        for replica in [one for one in self._live.values() if one.node == node]:
            self._lose(replica)
        self._changed = True
        self.settle()

    def _node_returns(self, node: str) -> None:
        self._away.discard(node)
        self._changed = True
        self.settle()

    def in_use(self) -> dict[str, int]:
        """Hundredths of GPUs held, by node: never more than the node has."""
        used: dict[str, int] = {}
        for replica in self._live.values():
            used[replica.node] = used.get(replica.node, 0) + replica.hundredths
        return used

    def preemptions(self) -> int:
        return sum(service.preemptions for service in self.services.values())
