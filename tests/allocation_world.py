"""What the tests of the allocator share: small fleets and claims by Hypothesis, and what every plan must be, checked without
its code.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import strategies as st

from serving.allocation import (
    HOUSE,
    Claim,
    Facts,
    Grade,
    Kind,
    Model,
    Node,
    Phase,
    Plan,
    Replica,
    Reservation,
    Shape,
    State,
    Team,
)

KINDS = (Kind("H100", 80_000, 2_000), Kind("L40S", 46_000, 1_000), Kind("RTX4090", 24_000, 1_000))
USABLE = {kind.name: kind.usable_mib for kind in KINDS}
TEAMS = ("lg", "nc", "skt")
DRAIN_S = 30.0


def part(kind: str, hundredths: int, speed: float = 100.0) -> Shape:
    """A part of one GPU, with all the memory that goes with it."""
    return Shape(kind, 1, hundredths, USABLE[kind] * hundredths // 100, speed)


def whole(kind: str, gpus: int = 1, speed: float = 1000.0) -> Shape:
    return Shape(kind, gpus, 100, USABLE[kind], speed)


_KIND_NAMES = st.sampled_from(list(USABLE))
shapes = st.one_of(
    st.builds(part, _KIND_NAMES, st.sampled_from([10, 25, 30, 50, 60]), st.sampled_from([50.0, 100.0])),
    st.builds(whole, _KIND_NAMES, st.sampled_from([1, 2, 3, 4]), st.sampled_from([500.0, 1000.0])),
)


@st.composite
def models(draw: st.DrawFn, id_: str) -> Model:
    floor = draw(st.sampled_from([0, 0, 1, 2]))
    chosen = draw(st.lists(shapes, max_size=3, unique_by=lambda shape: (shape.kind, shape.gpus, shape.hundredths)))
    return Model(id_, tuple(chosen), floor, floor + draw(st.integers(0, 6)))


@st.composite
def nodes(draw: st.DrawFn, id_: str) -> Node:
    return Node(
        id_, draw(_KIND_NAMES), draw(st.integers(1, 4)), draw(st.booleans()), draw(st.sampled_from([True, True, True, False]))
    )


def fitting(facts: Facts) -> Facts:
    """Without the reservations that go beyond the stable GPUs there are, each taken for all of the time."""
    owned: Counter[str] = Counter()
    for node in facts.nodes:
        if not node.volatile:
            owned[node.kind] += node.gpus
    kept: list[Reservation] = []
    for each in facts.reservations:
        same = sum(other.gpus for other in kept if other.kind == each.kind) + each.gpus
        every = sum(other.gpus for other in kept) + each.gpus
        if every <= owned.total() and (each.kind is None or same <= owned[each.kind]):
            kept.append(each)
    return replace(facts, reservations=tuple(kept))


@st.composite
def facts(draw: st.DrawFn) -> Facts:
    """Any facts that are right, of a few nodes, models and teams."""
    some_models = tuple(draw(models(f"m{number}")) for number in range(draw(st.integers(1, 4))))
    some_nodes = tuple(draw(nodes(f"n{number}")) for number in range(draw(st.integers(0, 6))))
    teams = tuple(Team(id_, draw(st.sampled_from([1.0, 2.0, 0.5]))) for id_ in TEAMS)
    pairs = [(team, model.id) for team in TEAMS for model in some_models]
    claims = tuple(Claim(*pair, draw(st.integers(0, 5))) for pair in draw(st.lists(st.sampled_from(pairs), unique=True)))
    reservations = tuple(
        Reservation(
            f"r{number}", draw(st.sampled_from(TEAMS)), draw(st.none() | _KIND_NAMES), draw(st.integers(1, 4)), start, start + 100
        )
        for number, start in enumerate(draw(st.lists(st.sampled_from([-50.0, 0.0, 50.0]), max_size=3)))
    )
    return fitting(Facts(KINDS, some_nodes, some_models, teams, claims, reservations, DRAIN_S))


def standing(replicas: tuple[Replica, ...]) -> list[Replica]:
    return [replica for replica in replicas if replica.phase is not Phase.DRAINING]


def places(state: State) -> dict[str, tuple[str, tuple[int, ...], str, Phase, float | None]]:
    """What a person would call the state: what is where, and what it is doing there."""
    return {each.id: (each.node, each.gpus, each.model, each.phase, each.until) for each in state.replicas}


def assert_sound(facts: Facts, before: State, plan: Plan, now: float) -> None:
    """What holds for every plan, whatever it is made of."""
    assert_never_over_committed(facts, plan)
    assert_within_bounds(facts, plan, now)
    assert_explained(facts, before, plan)
    assert_sure_places_are_stable(facts, plan)


def assert_never_over_committed(facts: Facts, plan: Plan) -> None:
    """Neither by what runs now with what drains, nor by what runs once that is gone; each on GPUs that exist, in one node."""
    by_id = {node.id: node for node in facts.nodes if node.up}
    for phases in ({Phase.RUNNING, Phase.DRAINING}, {Phase.RUNNING, Phase.PROMISED}):
        compute: Counter[tuple[str, int]] = Counter()
        memory: Counter[tuple[str, int]] = Counter()
        for replica in plan.replicas:
            if replica.phase in phases:
                node = by_id[replica.node]
                assert replica.shape.kind == node.kind
                assert len(set(replica.gpus)) == replica.shape.gpus
                for gpu in replica.gpus:
                    assert 0 <= gpu < node.gpus
                    compute[replica.node, gpu] += replica.shape.hundredths
                    memory[replica.node, gpu] += replica.shape.memory_mib
        assert all(hundredths <= 100 for hundredths in compute.values())
        assert all(mib <= USABLE[by_id[node].kind] for (node, _), mib in memory.items())


def assert_within_bounds(facts: Facts, plan: Plan, now: float) -> None:
    """No model above its ceiling, no team above what it wants; nothing waits or drains for longer than the time to drain."""
    wanted = {(claim.team, claim.model): claim.wanted for claim in facts.claims}
    by_model = Counter(replica.model for replica in standing(plan.replicas))
    for model in facts.models:
        assert by_model[model.id] <= model.ceiling
    for (team, model_id), count in Counter((replica.team, replica.model) for replica in standing(plan.replicas)).items():
        assert team == HOUSE or count <= wanted[team, model_id]
    for replica in plan.replicas:
        assert (replica.until is None) == (replica.phase is Phase.RUNNING)
        assert replica.until is None or now < replica.until <= now + facts.drain_s


def assert_explained(facts: Facts, before: State, plan: Plan) -> None:
    """Each replica that is or was, and each that is wanted and is not, has its sentence, in both languages."""
    ids = {replica.id for replica in plan.replicas} | {replica.id for replica in before.replicas}
    assert set(plan.why) == ids
    reasons = [*plan.why.values(), *(refusal.why for refusal in plan.refusals), *(shortfall.why for shortfall in plan.shortfalls)]
    for reason in reasons:
        for sentence in (reason.sentence("en"), reason.sentence("ko")):
            assert sentence.endswith(".")
            assert "{" not in sentence
            assert "None" not in sentence
    have = Counter((replica.team, replica.model) for replica in standing(plan.replicas))
    refused = {(refusal.team, refusal.model): refusal.count for refusal in plan.refusals}
    for claim in facts.claims:
        assert have[claim.team, claim.model] + refused.get((claim.team, claim.model), 0) == claim.wanted


def assert_sure_places_are_stable(facts: Facts, plan: Plan) -> None:
    """Floors and reservations rest on no node that may leave, and reserved replicas on what their team has reserved."""
    volatile = {node.id for node in facts.nodes if node.volatile}
    team_of = {reservation.id: reservation.team for reservation in facts.reservations}
    held = {(hold.node, gpu): team_of[hold.reservation] for hold in plan.holds for gpu in hold.gpus}
    assert not volatile & {hold.node for hold in plan.holds}
    for replica in standing(plan.replicas):
        if replica.grade <= Grade.RESERVED:
            assert replica.node not in volatile
        if replica.grade is Grade.RESERVED:
            assert all(held[replica.node, gpu] == replica.team for gpu in replica.gpus)
