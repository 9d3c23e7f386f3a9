"""Bad input is one clear error that names the place; shapes follow from memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from serving.allocation import (
    BadInput,
    Claim,
    Facts,
    Grade,
    Hold,
    Kind,
    Model,
    Need,
    Node,
    Phase,
    Replica,
    Reservation,
    Shape,
    State,
    Team,
    allocate,
    legal_shapes,
)
from tests.allocation_world import KINDS, part, whole

MODEL = Model("solar-10.7b", (whole("H100"),), 1, 4)
GOOD = Facts(KINDS, (Node("n0", "H100", 8), Node("cafe", "RTX4090", 4, volatile=True)), (MODEL,), (Team("lg"), Team("snu")))
RESERVED = Reservation("r0", "lg", "H100", 6, 0, 100)


def changed(**fields: object) -> Facts:
    return replace(GOOD, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("facts", "error"),
    [
        (
            changed(nodes=(Node("n0", "B300", 8),)),
            "nodes['n0'].kind: there is no kind of GPU 'B300'; there are H100, L40S, RTX4090.",
        ),
        (changed(nodes=(Node("n0", "H100", -1),)), "nodes['n0'].gpus: -1 is below 0."),
        (changed(nodes=GOOD.nodes * 2), "nodes['n0']: is there twice; leave one of them out."),
        (changed(kinds=(Kind("H100", 80, 80),)), "kinds['H100'].memory_mib: 80 MiB less 80 kept leaves nothing to use."),
        (
            changed(models=(replace(MODEL, floor=5),)),
            "models['solar-10.7b'].floor: 5 is above the ceiling of 4; lower one of them.",
        ),
        (changed(models=(replace(MODEL, floor=-1),)), "models['solar-10.7b'].floor: -1 is below 0."),
        (
            changed(models=(replace(MODEL, shapes=(Shape("B300", 1, 100, 1, 1),)),)),
            "models['solar-10.7b'].shapes['B300']: there is no kind of GPU 'B300'; there are H100, L40S, RTX4090.",
        ),
        (
            changed(models=(replace(MODEL, shapes=(Shape("H100", 1, 50, 39_001, 1),)),)),
            "models['solar-10.7b'].shapes['H100'].memory_mib: 39001 MiB are more than 50 hundredths of a GPU's 78000 MiB; "
            "give it a larger part.",
        ),
        (
            changed(models=(replace(MODEL, shapes=(Shape("H100", 2, 50, 1, 1),)),)),
            "models['solar-10.7b'].shapes['H100'].hundredths: a replica on several GPUs takes each of them whole.",
        ),
        (
            changed(models=(replace(MODEL, shapes=(part("H100", 50, float("nan")),)),)),
            "models['solar-10.7b'].shapes['H100'].tokens_per_s: nan is no speed; give what was measured, or leave the shape out.",
        ),
        (changed(teams=(Team("lg", 0),)), "teams['lg'].weight: 0 is no weight; give a number above 0."),
        (
            changed(claims=(Claim("nobody", MODEL.id, 1),)),
            "claims['nobody, solar-10.7b'].team: there is no team 'nobody'; there are lg, snu.",
        ),
        (changed(claims=(Claim("lg", MODEL.id, -1),)), "claims['lg, solar-10.7b'].wanted: -1 is below 0."),
        (changed(drain_s=-1), "drain_s: -1 is no time to drain; give 0 s or more."),
        (
            changed(reservations=(replace(RESERVED, end=0),)),
            "reservations['r0'].end: 0 is not after the start, 0.",
        ),
        (
            changed(reservations=(RESERVED, Reservation("r1", "snu", "H100", 3, 99, 200))),
            "reservations['r1'].gpus: with what else is reserved at 99 s, 9 are promised of 8 stable GPUs of kind H100; "
            "take fewer, or another time.",
        ),
        (
            changed(reservations=(RESERVED, Reservation("r1", "snu", None, 3, 50, 60))),
            "reservations['r1'].gpus: with what else is reserved at 50 s, 9 are promised of 8 stable GPUs in all; "
            "take fewer, or another time.",
        ),
        (
            changed(reservations=(Reservation("r1", "snu", "RTX4090", 1, 50, 60),)),
            "reservations['r1'].gpus: with what else is reserved at 50 s, 1 are promised of 0 stable GPUs of kind RTX4090; "
            "take fewer, or another time.",
        ),
    ],
)
def test_bad_facts_are_refused_by_name(facts: Facts, error: str) -> None:
    with pytest.raises(BadInput) as caught:
        allocate(facts, State(), 0)
    assert str(caught.value) == error


RUNNING = Replica("a", MODEL.id, "lg", "n0", (0,), whole("H100"), Grade.SHARE)


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (State((RUNNING, replace(RUNNING, id="b"))), "replicas['b'].gpus: GPU 0 of n0 would be over-committed."),
        (State((replace(RUNNING, gpus=(0, 1)),)), "replicas['a'].gpus: (0, 1) does not name 1 of the node's GPUs."),
        (State((replace(RUNNING, node="cafe"),)), "replicas['a'].shape: it is for H100, but cafe has RTX4090."),
        (State((replace(RUNNING, phase=Phase.DRAINING),)), "replicas['a'].until: is for what is promised or drains."),
        (State((), (Hold("r0", "n0", (0, 1)), Hold("r1", "n0", (1,)))), "holds['r1']: a GPU of n0 is held twice."),
    ],
)
def test_impossible_state_is_refused_by_name(state: State, error: str) -> None:
    with pytest.raises(BadInput) as caught:
        allocate(GOOD, state, 0)
    assert str(caught.value) == error


def test_reservations_one_after_the_other_are_no_overlap() -> None:
    allocate(changed(reservations=(RESERVED, Reservation("r1", "snu", "H100", 8, 100, 200))), State(), 0)


def test_a_machine_that_is_down_makes_no_reservation_impossible() -> None:
    allocate(changed(nodes=(Node("n0", "H100", 8, up=False),), reservations=(RESERVED,)), State(), 0)


def test_replica_of_a_model_that_is_no_longer_known_drains() -> None:
    plan = allocate(changed(models=()), State((RUNNING,)), 0)
    assert [(replica.id, replica.phase) for replica in plan.replicas] == [("a", Phase.DRAINING)]


KIND_80 = Kind("H100", 81_559, 1_559)  # 80,000 MiB to use
KIND_22 = Kind("RTX4090", 24_564, 2_564)  # 22,000


@pytest.mark.parametrize(
    ("need", "expected"),
    [
        (
            Need(weights_mib=15_000, cache_mib=4_000, fixed_mib=1_000),
            [Shape("H100", 1, 25, 20_000, 900), Shape("RTX4090", 1, 91, 20_000, 300)],
        ),
        (Need(15_000, 4_000, 1_000, compute=50), [Shape("H100", 1, 50, 20_000, 900), Shape("RTX4090", 1, 91, 20_000, 300)]),
        (Need(64_000, 8_000, 1_000), [Shape("H100", 1, 92, 73_000, 900), Shape("RTX4090", 4, 100, 22_000, 300)]),
        (Need(140_000, 16_000, 1_000), [Shape("H100", 2, 100, 80_000, 900), Shape("RTX4090", 8, 100, 22_000, 300)]),
        (Need(400_000, 16_000, 1_000, splits=(8,)), [Shape("H100", 8, 100, 80_000, 900)]),
    ],
)
def test_memory_decides_the_shape(need: Need, expected: list[Shape]) -> None:
    assert list(legal_shapes(need, (KIND_80, KIND_22), {"H100": 900, "RTX4090": 300})) == expected


def test_no_speed_no_shape() -> None:
    assert legal_shapes(Need(1, 1), (KIND_80, KIND_22), {"H100": 900}) == (Shape("H100", 1, 1, 2, 900),)
