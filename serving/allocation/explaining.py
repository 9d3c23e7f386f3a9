"""From the books to the plan: every replica with its reason, every refusal with its cause."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping

from serving.allocation.books import Books
from serving.allocation.claim import HOUSE
from serving.allocation.fleet import WHOLE
from serving.allocation.ground import DRAINING, Live
from serving.allocation.plan import Plan, Refusal, Shortfall
from serving.allocation.reason import Reason, Step, Why, place_of
from serving.allocation.replica import Grade, Phase, Replica

_BY_RIGHT = {
    Grade.FLOOR: Why.FLOOR,
    Grade.RESERVED: Why.RESERVED,
    Grade.SHARE: Why.SHARE,
    Grade.BORROWED: Why.BORROWED,
    Grade.SPARE: Why.SPARE,
}


def explain(books: Books) -> Plan:
    """The plan that the books have come to."""
    moved_from, replaced_by = _moves(books)
    causes = {live.id: by for live, by in books.dismissed}
    fields = {id_: {"floor": model.floor, "drain_s": books.facts.drain_s} for id_, model in books.models.items()}
    replicas: list[Replica] = []
    why: dict[str, Reason] = {}
    for live in sorted(books.lives.values(), key=lambda live: live.id):
        replica = _written(live)
        replicas.append(replica)
        if live.rank == DRAINING:
            why[live.id] = _why_it_leaves(live.id, replica, causes, replaced_by.get(live.id))
        else:
            why[live.id] = _why_there(live, replica, moved_from.get(live.id), fields[live.model])
    gone = tuple(replica for replica in books.before if replica.id not in books.lives)
    lost = {replica.id for replica in books.lost}
    why.update((replica.id, Reason(Why.NODE_LEFT if replica.id in lost else Why.DRAINED, replica)) for replica in gone)
    refusals = (*_floor_refusals(books), *_refusals(books))
    return Plan(tuple(replicas), tuple(books.holds), gone, refusals, tuple(_shortfalls(books)), why)


def _written(live: Live) -> Replica:
    """The replica as it is now; itself, if nothing about it has changed."""
    old = live.old
    if old and old.phase is live.phase and old.grade is live.grade and old.team == live.team and old.until == live.until:
        return old
    return Replica(live.id, live.model, live.team, live.node, live.gpus, live.shape, live.grade, live.phase, live.until)


def _moves(books: Books) -> tuple[dict[str, Replica], dict[str, str]]:
    """Where each new replica was before; and the id of the one that goes on for each that leaves or is lost."""
    left: dict[tuple[str, str], deque[Replica]] = {}
    for replica in sorted((*books.lost, *(live.old for live, _ in books.dismissed if live.old)), key=lambda replica: replica.id):
        if replica.phase is not Phase.DRAINING:
            left.setdefault((replica.team, replica.model), deque()).append(replica)
    moved_from: dict[str, Replica] = {}
    replaced_by: dict[str, str] = {}
    for live in sorted((live for live in books.lives.values() if live.old is None), key=lambda live: live.id):
        if before := left.get((live.team, live.model)):
            moved_from[live.id] = before.popleft()
            replaced_by[moved_from[live.id].id] = live.id
    return moved_from, replaced_by


def _why_there(live: Live, replica: Replica, moved_from: Replica | None, fields: Mapping[str, object]) -> Reason:
    waits = live.phase is Phase.PROMISED
    if moved_from:
        step = Step.MOVES_LATER if waits else Step.MOVES
        fields = {**fields, "moved": place_of(moved_from)}
    elif waits:
        step = Step.WAITS
    elif live.old is None or live.old.phase is Phase.PROMISED:
        step = Step.STARTS
    else:
        step = Step.STAYS
    if live.due and live.due[1] != live.shape.kind:
        return Reason(Why.ELSEWHERE, replica, step, {**fields, "kind": live.due[1]})
    return Reason(_BY_RIGHT[live.grade], replica, step, fields)


def _why_it_leaves(id_: str, replica: Replica, causes: Mapping[str, Live | None], replaced_by: str | None) -> Reason:
    if id_ not in causes:
        return Reason(Why.DRAINING, replica)
    by = causes[id_]
    if by is None:
        return Reason(Why.REPLACED, replica, None, {"by": replaced_by}) if replaced_by else Reason(Why.SURPLUS, replica)
    return Reason(Why.PREEMPTED, replica, None, {"by_model": by.model, "by_team": by.team, "by_grade": by.grade.name.lower()})


def _floor_refusals(books: Books) -> list[Refusal]:
    kept = Counter(live.model for live in books.lives.values() if live.rank == Grade.FLOOR)
    refusals: list[Refusal] = []
    for model in books.models.values():
        if (count := model.floor - kept[model.id]) > 0:
            reason = Reason(Why.NO_FLOOR, fields={"model": model.id, "count": count, "floor": model.floor})
            refusals.append(Refusal(HOUSE, model.id, count, reason))
    return refusals


def _refusals(books: Books) -> list[Refusal]:
    """What teams want and do not get."""
    have = Counter((live.team, live.model) for live in books.lives.values() if live.rank < DRAINING)
    total = Counter(live.model for live in books.lives.values() if live.rank < DRAINING)
    free = _free_by_kind(books)
    refusals: list[Refusal] = []
    for (team, model_id), wanted in books.wanted.items():
        count = wanted - have[team, model_id]
        if count <= 0:
            continue
        model, shapes = books.models[model_id], books.shapes[model_id]
        if total[model_id] >= model.ceiling:
            why = Why.CEILING
        elif not shapes:
            why = Why.NO_SHAPE
        elif any(free.get(shape.kind, 0) >= shape.size for shape in shapes):
            why = Why.SCATTERED
        else:
            why = Why.FULL
        fields = {"model": model_id, "team": team, "count": count, "ceiling": model.ceiling}
        refusals.append(Refusal(team, model_id, count, Reason(why, fields=fields)))
    return refusals


def _free_by_kind(books: Books) -> dict[str, int]:
    free: dict[str, int] = {}
    for cell, on in enumerate(books.ground.on):
        used = sum([live.shape.hundredths for live in on])
        kind = books.node_of[cell].kind
        free[kind] = free.get(kind, 0) + max(0, WHOLE - used)
    return free


def _shortfalls(books: Books) -> list[Shortfall]:
    shortfalls: list[Shortfall] = []
    got = Counter({each.id: 0 for each in books.facts.reservations})
    for hold in books.holds:
        got[hold.reservation] += len(hold.gpus)
    for each in sorted(books.facts.reservations, key=lambda each: each.id):
        count = each.gpus - got[each.id]
        if each.runs(books.now) and count > 0:
            reason = Reason(Why.RESERVED_AWAY, fields={"reservation": each.id, "gpus": each.gpus, "count": count})
            shortfalls.append(Shortfall(each.id, count, reason))
    return shortfalls
