"""First of all, every model keeps its floor, on nodes that do not leave, and off what others have reserved wherever that can
be.
"""

from __future__ import annotations

from collections import Counter

from serving.allocation.books import HELD, OPEN, Books
from serving.allocation.claim import HOUSE, Model
from serving.allocation.fleet import WHOLE
from serving.allocation.ground import Live
from serving.allocation.replica import Grade
from serving.allocation.shape import Shape

_Place = tuple[Shape, tuple[int, ...]]


def keep_floors(books: Books, *, small_first: bool) -> Counter[tuple[str, str]]:
    """Returns how many replicas of floors are each team's, by team and model, those included for which there is no room.

    Large ones first pack best. Where not all fit, small ones first keep most of them, and then one more GPU can never make room
    for a large one at the price of several small ones.
    """
    dealt: Counter[tuple[str, str]] = Counter()
    missing: list[tuple[str, str]] = []
    for model in books.models.values():
        shares = _deal(books, model)
        dealt.update({(team, model.id): count for team, count in shares.items()})
        missing += [(model.id, team) for team in sorted(_settle(books, model, shares).elements())]
    _demote_others(books)
    _move_off_reserved(books)
    size = {id_: min((shape.size for shape in shapes), default=0) for id_, shapes in books.shapes.items()}
    sign = 1 if small_first else -1
    for model_id, team in sorted(missing, key=lambda each: (sign * size[each[0]], *each)):
        place = _room(books, model_id, team)
        if place:
            books.start(model_id, team, *place, Grade.FLOOR)
    return dealt


def _deal(books: Books, model: Model) -> Counter[str]:
    """Whose each replica of the floor is: those of the teams that ask, in turn, then the house's."""
    smallest = min((shape.size for shape in model.shapes), default=WHOLE)
    need = min(model.floor, len(books.holder) * WHOLE // smallest + 1)  # more could not be placed anyway
    left = {team: books.wanted[team, model.id] for team in books.askers.get(model.id, ())}
    shares: Counter[str] = Counter()
    while need and (asking := [team for team, count in left.items() if count]):
        for team in asking[:need]:
            shares[team] += 1
            left[team] -= 1
        need -= min(need, len(asking))
    if need:
        shares[HOUSE] = need
    return shares


def _settle(books: Books, model: Model, shares: Counter[str]) -> Counter[str]:
    """What runs already becomes the floor. Returns whose is missing."""
    missing = Counter(shares)
    if not missing:
        return missing

    def rank(live: Live) -> tuple[bool, bool, str]:
        return live.grade is not Grade.FLOOR, _is_elsewheres(books, live), live.id

    others: list[Live] = []
    for live in sorted((live for live in books.standing(model.id) if books.is_stable(live)), key=rank):
        if missing[live.team] > 0:
            missing[live.team] -= 1
            books.grant(live, Grade.FLOOR, live.team)
        else:
            others.append(live)
    for live, team in zip(others, sorted(missing.elements()), strict=False):
        missing[team] -= 1
        books.grant(live, Grade.FLOOR, team)
    return missing


def _demote_others(books: Books) -> None:
    """Until it is known by what right they stay, if by any."""
    for live in books.lives.values():
        if live.rank <= Grade.RESERVED and live.id not in books.settled:
            is_own = live.rank == Grade.RESERVED and all(holder == live.team for holder in books.holders(live))
            if not is_own:
                books.ground.rerank(live, Grade.SPARE)


def _room(books: Books, model: str, team: str) -> _Place | None:
    """Not on what is reserved if it can be helped; if not, where the team is at home; last of all it takes another's reserved
    GPU.
    """
    shapes = books.shapes[model]
    own = books.pools.get(team)
    return (
        books.search(shapes, (OPEN,), Grade.FLOOR)
        or (books.search(shapes, (own,), Grade.RESERVED) if own is not None else None)
        or books.search(shapes, (HELD,), Grade.RESERVED)
        or books.search(shapes, (HELD,), Grade.FLOOR)
    )


def _move_off_reserved(books: Books) -> None:
    on_others = [live for live in books.lives.values() if live.rank == Grade.FLOOR and live.old and _is_elsewheres(books, live)]
    for live in sorted(on_others, key=lambda live: (live.model, live.id)):
        place = books.search(books.shapes[live.model], (OPEN,), Grade.RESERVED)
        if place:
            books.settled.discard(live.id)
            books.ground.rerank(live, Grade.SPARE)
            books.start(live.model, live.team, *place, Grade.FLOOR)


def _is_elsewheres(books: Books, live: Live) -> bool:
    """Another team has reserved a GPU that it stands on."""
    return any(holder not in (None, live.team) for holder in books.holders(live))
