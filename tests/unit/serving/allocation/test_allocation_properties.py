"""What holds for every plan, of whatever facts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import TypeVar

from hypothesis import given
from hypothesis import strategies as st

from serving.allocation import Facts, Grade, Model, Node, Plan, State, allocate
from tests.allocation_world import KINDS, assert_sound, facts, places, whole

T = TypeVar("T")


def floors_kept(plan: Plan) -> Counter[str]:
    return Counter(replica.model for replica in plan.replicas if replica.grade is Grade.FLOOR)


@given(facts())
def test_plan_is_sound_and_its_own_result_changes_nothing(some: Facts) -> None:
    plan = allocate(some, State(), 0)
    assert_sound(some, State(), plan, 0)
    again = allocate(some, plan.state, 0)
    assert places(again.state) == places(plan.state)
    assert again.state == plan.state
    assert again.gone == ()


@given(facts(), facts(), st.randoms(use_true_random=False))
def test_order_of_input_does_not_matter(some: Facts, earlier: Facts, random: Random) -> None:
    nodes = tuple(replace(node, id=f"{node.id}-{node.kind}") for node in some.nodes)
    some = replace(some, nodes=nodes)
    state = allocate(replace(earlier, nodes=nodes, reservations=()), State(), -1).state

    def mixed(things: tuple[T, ...]) -> tuple[T, ...]:
        return tuple(random.sample(things, len(things)))

    other = replace(
        some,
        kinds=mixed(some.kinds),
        nodes=mixed(some.nodes),
        models=mixed(tuple(replace(model, shapes=mixed(model.shapes)) for model in some.models)),
        teams=mixed(some.teams),
        claims=mixed(some.claims),
        reservations=mixed(some.reservations),
    )
    plan = allocate(some, state, 0)
    assert allocate(other, State(mixed(state.replicas), mixed(state.holds)), 0) == plan


@given(facts(), st.data())
def test_one_more_gpu_never_takes_a_floor_that_is_kept(some: Facts, data: st.DataObject) -> None:
    before = allocate(some, State(), 0)
    grown: list[Node] = list(some.nodes)
    grows: bool = data.draw(st.booleans(), label="in a node that is there")
    if grown and grows:
        number = data.draw(st.integers(0, len(grown) - 1))
        grown[number] = replace(grown[number], gpus=grown[number].gpus + 1)
    else:
        grown.append(Node("new", data.draw(st.sampled_from([kind.name for kind in KINDS])), 1, data.draw(st.booleans())))
    after = allocate(replace(some, nodes=tuple(grown)), before.state, 0)
    assert floors_kept(before) <= floors_kept(after)


@given(
    st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=6), st.lists(st.integers(1, 9), max_size=5), st.integers(0, 5)
)
def test_one_more_gpu_never_takes_a_floor_from_scratch(sizes: list[int], gpus: list[int], at: int) -> None:
    """Nor does it where both fleets are planned from nothing; for one kind and sizes that divide each other. In general that is
    bin packing, for which no fast rule is without such an anomaly.
    """
    models = tuple(Model(f"m{number}", (whole("H100", size),), 1) for number, size in enumerate(sizes))
    nodes = tuple(Node(f"n{number}", "H100", count) for number, count in enumerate(gpus))
    grown = tuple(replace(node, gpus=node.gpus + (number == at)) for number, node in enumerate(nodes))
    grown += (Node("new", "H100", 1),) if grown == nodes else ()
    before = allocate(Facts(KINDS, nodes, models), State(), 0)
    after = allocate(Facts(KINDS, grown, models), State(), 0)
    assert floors_kept(before).total() <= floors_kept(after).total()
    assert floors_kept(before) <= floors_kept(after)


@given(facts(), st.sampled_from([kind.name for kind in KINDS]))
def test_where_everybody_is_content_a_new_node_moves_nothing(some: Facts, kind: str) -> None:
    plan = allocate(replace(some, reservations=()), State(), 0)
    if not plan.refusals:
        grown = replace(some, reservations=(), nodes=(*some.nodes, Node("new", kind, 4)))
        assert places(allocate(grown, plan.state, 0).state) == places(plan.state)
