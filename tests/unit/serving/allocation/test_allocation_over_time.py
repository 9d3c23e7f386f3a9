"""A fleet over time: nodes leave and come, demand changes, reservations are made and begin, time passes; each plan starts from
the last.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from serving.allocation import Claim, Facts, Grade, Model, Node, Phase, Plan, Reservation, State, Team, allocate
from tests.allocation_world import DRAIN_S, KINDS, TEAMS, assert_sound, fitting, models, part, places, standing, whole

_KIND_NAMES = st.sampled_from([kind.name for kind in KINDS])
_MODEL_IDS = ("m0", "m1", "m2")


class Fleet(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.numbers = count()
        defaults = (
            Model("m0", (whole("H100"), part("RTX4090", 50))),
            Model("m1", (whole("H100", 2),)),
            Model("m2", (part("H100", 25),)),
        )
        nodes = (Node("first", "H100", 4), Node("second", "H100", 2))
        self.facts = Facts(KINDS, nodes, defaults, tuple(Team(id_) for id_ in TEAMS), drain_s=DRAIN_S)
        self.plan = allocate(self.facts, State(), self.now)

    def step(self) -> Plan:
        """The next plan, with all that holds for every plan; returns the one before."""
        before, self.plan = self.plan, allocate(self.facts, self.plan.state, self.now)
        assert_sound(self.facts, before.state, self.plan, self.now)
        again = allocate(self.facts, self.plan.state, self.now)
        assert places(again.state) == places(self.plan.state)
        assert again.state == self.plan.state
        self.assert_reservations_are_honoured()
        self.assert_promises_hold(before)
        return before

    @rule(team=st.sampled_from(TEAMS), model=st.sampled_from(_MODEL_IDS), wanted=st.integers(0, 6))
    def demand(self, team: str, model: str, wanted: int) -> None:
        others = [claim for claim in self.facts.claims if (claim.team, claim.model) != (team, model)]
        self.facts = replace(self.facts, claims=(*others, Claim(team, model, wanted)))
        self.step()

    @rule(data=st.data(), id_=st.sampled_from(_MODEL_IDS))
    def other_bounds_and_shapes(self, data: st.DataObject, id_: str) -> None:
        changed = data.draw(models(id_))
        self.facts = replace(self.facts, models=tuple(changed if model.id == id_ else model for model in self.facts.models))
        self.step()

    @precondition(lambda self: len(self.facts.nodes) < 8)
    @rule(kind=_KIND_NAMES, gpus=st.integers(1, 4), volatile=st.booleans())
    def node_comes(self, kind: str, gpus: int, volatile: bool) -> None:
        self.facts = replace(self.facts, nodes=(*self.facts.nodes, Node(f"n{next(self.numbers)}", kind, gpus, volatile)))
        before = self.step()
        assert floors(before) <= floors(self.plan)

    @rule(data=st.data())
    def node_leaves_or_returns(self, data: st.DataObject) -> None:
        """A volatile node is gone for good; a stable one is down for a while."""
        node = data.draw(st.sampled_from(self.facts.nodes))
        others = tuple(other for other in self.facts.nodes if other is not node)
        self.facts = replace(self.facts, nodes=others if node.volatile else (*others, replace(node, up=not node.up)))
        self.step()

    @rule(team=st.sampled_from(TEAMS), kind=st.none() | _KIND_NAMES, gpus=st.integers(1, 6), begins=st.sampled_from([0.0, 25.0]))
    def reserve(self, team: str, kind: str | None, gpus: int, begins: float) -> None:
        start = self.now + begins
        made = Reservation(f"r{next(self.numbers)}", team, kind, gpus, start, start + 60.0)
        running = tuple(each for each in self.facts.reservations if each.end > self.now)
        self.facts = fitting(replace(self.facts, reservations=(*running, made)))
        self.step()

    @rule(passed_s=st.sampled_from([1.0, 10.0, DRAIN_S]))
    def time_passes(self, passed_s: float) -> None:
        then = self.now
        self.now += passed_s
        before = self.step()
        if not any(then < at <= self.now for each in self.facts.reservations for at in (each.start, each.end)):
            stood = {replica.id: (replica.node, replica.gpus) for replica in standing(before.replicas)}
            stands = {replica.id: (replica.node, replica.gpus) for replica in standing(self.plan.replicas)}
            assert stood.items() <= stands.items()  # time alone moves nobody
            if passed_s >= DRAIN_S:
                assert {replica.phase for replica in self.plan.replicas if replica.id in stood} <= {Phase.RUNNING}

    def assert_promises_hold(self, before: Plan) -> None:
        """Nobody is put off: who was promised a place by a time has it then, or has lost it for good."""
        promised = {replica.id: replica.until for replica in before.replicas if replica.phase is Phase.PROMISED}
        for replica in self.plan.replicas:
            until = promised.get(replica.id)
            if until is not None and replica.phase is not Phase.RUNNING:
                assert self.now < until
                assert replica.until is not None
                assert replica.until <= until

    def assert_reservations_are_honoured(self) -> None:
        """Every reservation has its GPUs, if there are enough that are up; and on them stands nothing of lesser right while the
        team that has reserved them wants a replica that would fit there. (`assert_sound` bounds the wait for what is promised.)
        """
        running = [each for each in self.facts.reservations if each.runs(self.now)]
        stable: Counter[str] = Counter()
        for node in self.facts.nodes:
            stable[node.kind] += node.gpus if node.up and not node.volatile else 0
        held = Counter({each.id: 0 for each in running})
        for hold in self.plan.holds:
            held[hold.reservation] += len(hold.gpus)
        enough = all(sum(each.gpus for each in running if each.kind == kind) <= stable[kind] for kind in stable)
        if enough and sum(each.gpus for each in running) <= stable.total():
            assert held == {each.id: each.gpus for each in running}
        teams = {each.id: each.team for each in running}
        for team in set(teams.values()):
            own: dict[str, list[int]] = {}
            for hold in self.plan.holds:
                if teams[hold.reservation] == team:
                    own.setdefault(hold.node, []).extend(hold.gpus)
            self.assert_no_room_is_withheld(team, own)

    def assert_no_room_is_withheld(self, team: str, own: dict[str, list[int]]) -> None:
        load: Counter[tuple[str, int]] = Counter()
        for replica in standing(self.plan.replicas):
            if replica.grade <= Grade.RESERVED:
                load.update({(replica.node, gpu): replica.shape.hundredths for gpu in replica.gpus})
        kinds = {node.id: node.kind for node in self.facts.nodes}
        total = Counter(replica.model for replica in standing(self.plan.replicas))
        by_id = {model.id: model for model in self.facts.models}
        for refusal in self.plan.refusals:
            model = by_id[refusal.model]
            if refusal.team == team and total[model.id] < model.ceiling:
                for shape in model.shapes:
                    for node, gpus in own.items():
                        fits = [gpu for gpu in gpus if load[node, gpu] + shape.hundredths <= 100]
                        assert kinds[node] != shape.kind or len(fits) < shape.gpus


def floors(plan: Plan) -> Counter[str]:
    return Counter(
        replica.model for replica in plan.replicas if replica.grade is Grade.FLOOR and replica.phase is not Phase.DRAINING
    )


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=40, stateful_step_count=25)
