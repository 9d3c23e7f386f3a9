"""Which replica runs where: the stages of a plan on one screen.

Pure: the same facts, state and time give the same plan, whatever order they come in. Nothing is half done: bad input raises
before anything is decided, and the state that came in is never changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from serving.allocation.binding import bind
from serving.allocation.books import Books
from serving.allocation.check import check
from serving.allocation.claim import Facts
from serving.allocation.explaining import explain
from serving.allocation.fair import place_rights, use_the_rest
from serving.allocation.fleet import WHOLE
from serving.allocation.floors import keep_floors
from serving.allocation.ground import DRAINING
from serving.allocation.matching import match, match_again
from serving.allocation.plan import Plan
from serving.allocation.promise import keep_promises
from serving.allocation.replica import Grade, Hold, State
from serving.allocation.reserved import use_reservations
from serving.allocation.sharing import Supply, fill

_Counts = Counter[tuple[str, str]]  # replicas by team and model


def allocate(facts: Facts, state: State, now: float) -> Plan:
    """Where each replica is from `now` on. Raises BadInput."""
    check(facts, state, now)
    books = _decide(facts, state, now, small_first=False)
    if _lacks_floors(books):
        books = _decide(facts, state, now, small_first=True)
    keep_promises(books)
    return explain(books)


def _decide(facts: Facts, state: State, now: float, *, small_first: bool) -> Books:
    books = Books(facts, state, _bind(facts, state, now), now)
    dealt = keep_floors(books, small_first=small_first)
    sure = dealt + use_reservations(books, dealt)
    wants = {key: wanted - sure[key] for key, wanted in books.wanted.items()}
    ceilings = {id_: model.ceiling for id_, model in books.models.items()}
    for (_, model), count in sure.items():
        ceilings[model] -= count
    weights = {team.id: team.weight for team in sorted(facts.teams, key=lambda team: team.id)}
    shares = fill(_supply(books), weights, wants, ceilings, books.shapes)
    for (_, model, _, _), count in shares.rights.items():
        ceilings[model] -= count
    missing = match(books, shares.rights)
    _keep_spare(books, shares.without, ceilings)
    place_rights(books, shares.rights, missing)
    spare = _spare(books)
    for (_, model), count in spare.items():
        ceilings[model] -= count
    without = {key: count - spare[key] for key, count in shares.without.items()}
    begun = use_the_rest(books, without, ceilings, shares.share)
    match_again(books, shares.rights, begun)
    return books


def _bind(facts: Facts, state: State, now: float) -> tuple[Hold, ...]:
    kinds_of = {model.id: {shape.kind for shape in model.shapes} for model in facts.models}
    suiting: dict[str, set[str]] = {}
    for claim in facts.claims:
        suiting.setdefault(claim.team, set()).update(kinds_of[claim.model])
    return bind(facts.reservations, facts.nodes, state.replicas, state.holds, suiting, now)


def _lacks_floors(books: Books) -> bool:
    kept = Counter(live.model for live in books.lives.values() if live.rank == Grade.FLOOR)
    return any(kept[model.id] < model.floor for model in books.models.values())


def _supply(books: Books) -> Supply:
    """What floors and reserved replicas leave, by kind; lent GPUs are part of all, not of what nobody has reserved."""
    every = {node.kind: 0 for node in books.nodes}
    unreserved = dict(every)
    for cell, node in enumerate(books.node_of):
        every[node.kind] += WHOLE
        unreserved[node.kind] += WHOLE if books.holder[cell] is None else 0
    for live in books.lives.values():
        if live.rank <= Grade.RESERVED:
            every[live.shape.kind] -= live.shape.size
            outside = sum([books.holder[cell] is None for cell in live.cells])
            unreserved[live.shape.kind] -= outside * live.shape.hundredths
    memory = {kind.name: kind.usable_mib / WHOLE for kind in books.facts.kinds}
    return Supply(every, unreserved, memory, books.preference.worth)


def _keep_spare(books: Books, without: Mapping[tuple[str, str], int], ceilings: Mapping[str, int]) -> None:
    """What no right covers stays if it is wanted and in nobody's way; the rest drains."""
    left, more = dict(without), dict(ceilings)
    unsettled = [live for live in books.lives.values() if live.id not in books.settled and live.rank < DRAINING]
    for live in sorted(unsettled, key=lambda live: (live.model, live.grade, live.id)):
        key = (live.team, live.model)
        if left.get(key, 0) > 0 and more[live.model] > 0:
            left[key] -= 1
            more[live.model] -= 1
            books.grant(live, Grade.SPARE, live.team)
        else:
            books.dismiss(live, None)


def _spare(books: Books) -> _Counts:
    """What stands without a right."""
    spare = (live for live in books.lives.values() if live.rank == Grade.SPARE and live.due is None)
    return Counter((live.team, live.model) for live in spare)
