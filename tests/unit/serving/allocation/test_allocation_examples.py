"""Small fleets that a person can check by hand, and the national programme's half year."""

from __future__ import annotations

from dataclasses import replace

from serving.allocation import (
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
    State,
    Team,
    allocate,
)
from tests.allocation_world import DRAIN_S, KINDS, assert_sound, part, standing, whole

HALF_YEAR_S = 182 * 86_400.0
EXAONE = Model("exaone-32b", (whole("H100", 2),))
SOLAR = Model("solar-10.7b", (whole("H100"),))
KANANA = Model("kanana-2.1b", (part("H100", 25),))


def nodes(count: int, gpus: int = 8, kind: str = "H100", *, volatile: bool = False) -> tuple[Node, ...]:
    prefix = "cafe" if volatile else kind.lower()
    return tuple(Node(f"{prefix}-{number}", kind, gpus, volatile) for number in range(count))


def facts(*models: Model, on: tuple[Node, ...], claims: tuple[Claim, ...] = (), **others: object) -> Facts:
    teams = tuple(Team(id_) for id_ in sorted({claim.team for claim in claims}))
    return replace(Facts(KINDS, on, models, teams, claims, drain_s=DRAIN_S), **others)  # type: ignore[arg-type]


def by_team(plan: Plan, phase: Phase = Phase.RUNNING) -> dict[str, int]:
    teams = [replica.team for replica in plan.replicas if replica.phase is phase]
    return {team: teams.count(team) for team in sorted(set(teams))}


def only(plan: Plan) -> Replica:
    (replica,) = plan.replicas
    return replica


def test_replica_on_several_gpus_lies_on_one_node() -> None:
    plan = allocate(facts(EXAONE, on=nodes(3, gpus=1), claims=(Claim("lg", EXAONE.id, 1),)), State(), 0)
    assert plan.replicas == ()
    assert "no shape that fits into any node" in plan.refusals[0].why.sentence()
    plan = allocate(facts(EXAONE, on=nodes(3, gpus=2), claims=(Claim("lg", EXAONE.id, 1),)), State(), 0)
    assert only(plan).gpus == (0, 1)


def test_parts_share_one_gpu_and_leave_the_others_whole() -> None:
    plan = allocate(facts(KANANA, on=nodes(2), claims=(Claim("kakao", KANANA.id, 4),)), State(), 0)
    assert {(replica.node, replica.gpus) for replica in plan.replicas} == {("h100-0", (0,))}


def test_small_replicas_go_where_least_is_free() -> None:
    """The node of one is just right for the replica of one; the node of eight stays whole for the one that needs it."""
    big = Model("k-exaone", (whole("H100", 8),))
    on = (*nodes(1), Node("single", "H100", 1))
    claims = (Claim("lg", big.id, 1), Claim("upstage", SOLAR.id, 1))
    first = allocate(facts(SOLAR, on=on, claims=claims[1:]), State(), 0)
    assert only(first).node == "single"
    plan = allocate(facts(SOLAR, big, on=on, claims=claims), first.state, 0)
    assert {replica.model: replica.node for replica in plan.replicas} == {SOLAR.id: "single", big.id: "h100-0"}


def test_floor_comes_before_what_teams_want() -> None:
    floor = replace(SOLAR, floor=1)
    claims = (Claim("lg", EXAONE.id, 4),)
    plan = allocate(facts(EXAONE, floor, on=nodes(1, gpus=4), claims=claims), State(), 0)
    assert sorted((replica.model, replica.grade) for replica in plan.replicas) == [
        (EXAONE.id, Grade.SHARE),
        (SOLAR.id, Grade.FLOOR),
    ]
    assert plan.why["solar-10.7b#1"].sentence() == (
        "solar-10.7b starts on h100-0 (GPU 0) as one of the at least 1 replicas that it must always have, "
        "on a node that does not leave."
    )
    assert plan.why["solar-10.7b#1"].sentence("ko") == (
        "solar-10.7b: 항상 있어야 하는 최소 1개 복제본 중 하나로, 이탈하지 않는 노드인 h100-0 (GPU 0)에서 시작합니다."
    )


def test_floor_does_not_rest_on_a_node_that_may_leave() -> None:
    floor = replace(SOLAR, floor=1)
    plan = allocate(facts(floor, on=nodes(2, volatile=True)), State(), 0)
    assert plan.replicas == ()
    assert plan.refusals[0].why.sentence() == (
        "1 of the 1 replicas that solar-10.7b must always have have no room on nodes that do not leave; add one."
    )


def test_ceiling_holds_whoever_asks() -> None:
    capped = replace(SOLAR, ceiling=3)
    claims = (Claim("lg", SOLAR.id, 2), Claim("upstage", SOLAR.id, 4))
    plan = allocate(facts(capped, on=nodes(1), claims=claims), State(), 0)
    assert len(plan.replicas) == 3
    assert "beyond its ceiling of 3" in plan.refusals[0].why.sentence()


def test_teams_share_by_weight() -> None:
    claims = (Claim("lg", SOLAR.id, 8), Claim("university", SOLAR.id, 8))
    weighted = facts(SOLAR, on=nodes(1), claims=claims, teams=(Team("lg", 3.0), Team("university", 1.0)))
    assert by_team(allocate(weighted, State(), 0)) == {"lg": 6, "university": 2}


def test_idle_gpus_are_borrowed_and_given_back() -> None:
    """One team alone may have all; when the other comes it has its half within the time to drain."""
    alone = facts(SOLAR, on=nodes(1), claims=(Claim("lg", SOLAR.id, 8),), teams=(Team("lg"), Team("university")))
    before = allocate(alone, State(), 0)
    assert sorted(replica.grade for replica in before.replicas) == [Grade.SHARE] * 4 + [Grade.BORROWED] * 4
    both = replace(alone, claims=(*alone.claims, Claim("university", SOLAR.id, 8)))
    during = allocate(both, before.state, 10)
    assert by_team(during, Phase.DRAINING) == {}  # the model is the same: the replicas change hands and nothing moves
    assert by_team(during) == {"lg": 4, "university": 4}

    other = replace(both, models=(SOLAR, EXAONE), claims=(alone.claims[0], Claim("university", EXAONE.id, 8)))
    during = allocate(other, before.state, 10)
    assert by_team(during) == {"lg": 4}
    assert by_team(during, Phase.DRAINING) == {"lg": 4}
    assert {replica.until for replica in during.replicas if replica.phase is Phase.PROMISED} == {10 + DRAIN_S}
    assert by_team(allocate(other, during.state, 10 + DRAIN_S)) == {"lg": 4, "university": 2}


def test_small_model_leaves_the_large_card_to_the_model_that_needs_it() -> None:
    small = Model("kanana-2.1b", (whole("H100", speed=1000), whole("RTX4090", speed=900)))
    large = Model("exaone-32b", (whole("H100", speed=500),))
    on = (*nodes(1, gpus=2), *nodes(1, gpus=2, kind="RTX4090"))
    claims = (Claim("kakao", small.id, 2), Claim("lg", large.id, 2))
    plan = allocate(facts(small, large, on=on, claims=claims), State(), 0)
    assert {(replica.model, replica.shape.kind) for replica in plan.replicas} == {(small.id, "RTX4090"), (large.id, "H100")}
    assert plan.refusals == ()


def test_replica_of_a_node_that_left_starts_elsewhere_and_says_so() -> None:
    cafe = nodes(2, gpus=1, volatile=True)
    claims = (Claim("lg", SOLAR.id, 1),)
    before = allocate(facts(SOLAR, on=cafe[:1], claims=claims), State(), 0)
    plan = allocate(facts(SOLAR, on=cafe[1:], claims=claims), before.state, 1)
    assert [replica.id for replica in plan.gone] == ["solar-10.7b#1"]
    assert plan.why["solar-10.7b#1"].sentence() == "solar-10.7b of lg is lost: cafe-0 has left, or the GPU in it."
    assert plan.why["solar-10.7b#2"].sentence() == (
        "solar-10.7b moves from cafe-0 (GPU 0) to cafe-1 (GPU 0) within the fair share of lg."
    )


def test_preempted_replica_says_for_whom() -> None:
    kept = replace(SOLAR, floor=1)
    before = allocate(facts(EXAONE, on=nodes(1, gpus=2), claims=(Claim("lg", EXAONE.id, 1),)), State(), 0)
    plan = allocate(facts(EXAONE, kept, on=nodes(1, gpus=2), claims=(Claim("lg", EXAONE.id, 1),)), before.state, 0)
    assert plan.why["exaone-32b#1"].sentence() == (
        "exaone-32b of lg leaves h100-0 (GPU 0, 1) by 30 s for solar-10.7b of the house, which has more right (its floor)."
    )
    assert plan.why["exaone-32b#1"].sentence("ko") == (
        "exaone-32b(lg 팀): 공용 팀의 solar-10.7b(최소 복제본)이 우선하여 30초까지 h100-0 (GPU 0, 1)에서 물러납니다."
    )
    assert plan.why["solar-10.7b#1"].sentence().startswith("solar-10.7b starts on h100-0 (GPU 0) by 30 s, once that has drained")


def test_team_stays_at_home_when_its_reservation_begins() -> None:
    """The GPUs that the team already uses are those that it gets."""
    claims = (Claim("lg", SOLAR.id, 8), Claim("university", KANANA.id, 8))
    reservation = Reservation("h1", "lg", "H100", 8, 100, 200)
    shared = facts(SOLAR, KANANA, on=nodes(2), claims=claims, reservations=(reservation,))
    before = allocate(shared, State(), 0)
    plan = allocate(shared, before.state, 100)
    assert {r.id: (r.node, r.gpus) for r in plan.replicas} == {r.id: (r.node, r.gpus) for r in before.replicas}
    assert [r.grade for r in plan.replicas if r.team == "lg"] == [Grade.RESERVED] * 8


def test_reservation_that_cannot_be_met_for_now_is_named() -> None:
    on = tuple(replace(node, up=node.id == "h100-0") for node in nodes(2))
    reservation = Reservation("h1", "lg", "H100", 16, 0, 100)
    plan = allocate(facts(SOLAR, on=on, claims=(Claim("lg", SOLAR.id, 16),), reservations=(reservation,)), State(), 0)
    assert [(shortfall.reservation, shortfall.gpus) for shortfall in plan.shortfalls] == [("h1", 8)]
    assert len(standing(plan.replicas)) == 8


class NationalProgramme:
    """768 H100 in 96 nodes and 64 cards of PC cafés. LG has 512 for half a year; two universities live on the rest."""

    k_exaone = Model("k-exaone", (whole("H100", 8, 2_000),), ceiling=64)
    small = Model("kanana-8b", (part("H100", 50, 900), whole("RTX4090", 1, 600)))
    big = Model("exaone-32b", (whole("H100", 2, 1_500),), floor=2)
    start, end = 1_000.0, 1_000.0 + HALF_YEAR_S

    def facts(self, lg: int) -> Facts:
        return Facts(
            (*KINDS, Kind("unused", 1)),
            (*nodes(96), *nodes(16, gpus=4, kind="RTX4090", volatile=True)),
            (self.k_exaone, self.small, self.big),
            (Team("lg"), Team("kaist"), Team("snu")),
            (Claim("lg", "k-exaone", lg), Claim("kaist", "kanana-8b", 900), Claim("snu", "exaone-32b", 300)),
            (Reservation("half-year", "lg", "H100", 512, self.start, self.end),),
            DRAIN_S,
        )

    def h100s(self, plan: Plan, team: str, *phases: Phase) -> float:
        mine = [r for r in plan.replicas if r.team == team and r.shape.kind == "H100" and r.phase in phases]
        return sum(r.shape.size for r in mine) / 100


def test_national_programme_gets_its_512_gpus_within_the_time_to_drain() -> None:
    case = NationalProgramme()
    idle, busy = case.facts(0), case.facts(64)

    before = allocate(idle, State(), 0.0)
    assert case.h100s(before, "kaist", Phase.RUNNING) + case.h100s(before, "snu", Phase.RUNNING) == 768

    lent = allocate(idle, before.state, case.start)  # reserved, but not used yet: it stays lent
    assert [(r.node, r.gpus, r.phase) for r in lent.replicas] == [(r.node, r.gpus, r.phase) for r in before.replicas]
    assert sum(len(hold.gpus) for hold in lent.holds) == 512

    wanted_at = case.start + 3_600
    asked = allocate(busy, lent.state, wanted_at)
    assert_sound(busy, lent.state, asked, wanted_at)
    assert case.h100s(asked, "lg", Phase.RUNNING, Phase.PROMISED) == 512
    assert max(r.until or 0 for r in asked.replicas) == wanted_at + DRAIN_S

    back = allocate(busy, asked.state, wanted_at + DRAIN_S)
    assert_sound(busy, asked.state, back, wanted_at + DRAIN_S)
    assert case.h100s(back, "lg", Phase.RUNNING) == 512
    assert case.h100s(back, "kaist", Phase.RUNNING) + case.h100s(back, "snu", Phase.RUNNING) == 256
    assert back.why["k-exaone#1"].sentence("ko").startswith("k-exaone: lg 팀이 예약한 GPU인 h100-")
    assert allocate(busy, back.state, wanted_at + DRAIN_S).state == back.state

    over = allocate(busy, back.state, case.end)
    assert over.holds == ()
    # No reservation any more: each has about a third of the fleet's worth. LG's part has shrunk, and nobody else was moved.
    assert 240 <= case.h100s(over, "lg", Phase.RUNNING) <= 280
    stood = {replica.id: (replica.node, replica.gpus) for replica in back.replicas if replica.team != "lg"}
    assert stood.items() <= {replica.id: (replica.node, replica.gpus) for replica in over.replicas}.items()
