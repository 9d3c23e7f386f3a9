"""One fleet's course: from nothing, again, the start of all reservations, the end of the drain, and an evening on which cafés
want their cards back. Each plan is timed in processor time and checked without the allocator's own code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from time import process_time

from benchmarks.allocation.aims import Round
from benchmarks.allocation.national import PROGRAMME, national
from serving.allocation import Facts, Grade, Phase, Plan, Replica, State, allocate

Say = Callable[[str], None]


def course(seed: int, say: Say) -> Round:
    facts = national(seed)
    figures: dict[str, float] = {}
    over_committed = 0

    def timed(name: str, facts: Facts, state: State, now: float) -> Plan:
        nonlocal over_committed
        began = process_time()
        plan = allocate(facts, state, now)
        figures[f"seconds_{name}"] = process_time() - began
        over_committed += _over_committed(plan)
        say(f"seed {seed}: {name.replace('_', ' ')}: {figures[f'seconds_{name}']:.2f} s, {_told(plan)}")
        return plan

    fresh = timed("from_nothing", facts, State(), -1.0)
    again = timed("nothing_new", facts, fresh.state, -1.0)
    figures["moved_when_nothing_is_new"] = _moved(fresh, again)
    start = timed("reservations_begin", facts, fresh.state, 0.0)
    figures["seconds_until_reserved_gpus_are_back"] = max((each.until or 0.0 for each in _programme(start)), default=0.0)
    back = timed("after_the_drain", facts, start.state, facts.drain_s)
    figures["reserved_gpus_idle_though_wanted"] = _withheld(facts, back)
    left = replace(facts, nodes=tuple(node for node in facts.nodes if not node.volatile))
    timed("nodes_leave", left, back.state, facts.drain_s)
    figures["gpus_over_committed"] = over_committed
    return Round(seed, figures)


def _told(plan: Plan) -> str:
    phases = Counter(replica.phase.value for replica in plan.replicas)
    wanting = sum(refusal.count for refusal in plan.refusals)
    return ", ".join(f"{count} {phase}" for phase, count in sorted(phases.items())) + f", {wanting} without a place"


def _programme(plan: Plan) -> list[Replica]:
    return [each for each in plan.replicas if each.team in PROGRAMME and each.grade is Grade.RESERVED]


def _moved(before: Plan, after: Plan) -> int:
    """Replicas that are not where they were, or were not there."""
    places = {(each.id, each.node, each.gpus) for each in before.replicas}
    return len(places ^ {(each.id, each.node, each.gpus) for each in after.replicas})


def _over_committed(plan: Plan) -> int:
    """GPUs on which more stands than they have, now or once what drains is gone."""
    over: set[tuple[str, int]] = set()
    for absent in (Phase.PROMISED, Phase.DRAINING):
        used: Counter[tuple[str, int]] = Counter()
        for each in plan.replicas:
            if each.phase is not absent:
                for gpu in each.gpus:
                    used[each.node, gpu] += each.shape.hundredths
        over |= {cell for cell, hundredths in used.items() if hundredths > 100}
    return len(over)


def _withheld(facts: Facts, plan: Plan) -> int:
    """Whole GPUs that a team has reserved and on which it runs nothing, though it wants a replica that one of them would hold."""
    single = {m.id for m in facts.models if any(shape.kind == "H100" and shape.gpus == 1 for shape in m.shapes)}
    wanting = {refusal.team for refusal in plan.refusals if refusal.model in single}
    teams = {each.id: each.team for each in facts.reservations}
    sure = {(each.node, gpu) for each in plan.replicas if each.grade <= Grade.RESERVED for gpu in each.gpus}
    return sum((hold.node, gpu) not in sure for hold in plan.holds if teams[hold.reservation] in wanting for gpu in hold.gpus)
