"""Then every team gets what it wants on the GPUs that it has reserved; whoever has borrowed them goes."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping

from serving.allocation.books import Books
from serving.allocation.ground import DRAINING, Live
from serving.allocation.replica import Grade


def use_reservations(books: Books, dealt: Mapping[tuple[str, str], int]) -> Counter[tuple[str, str]]:
    """`dealt` is what is each team's of the floors. Returns the replicas on reserved GPUs, by team and model."""
    taken = _Taken(books, dealt)
    at_home = _at_home(books)
    for team in books.pools:
        for live in sorted(at_home.get(team, ()), key=lambda live: (live.team != team, live.grade, live.id)):
            if taken.may_have(team, live.model):
                books.grant(live, Grade.RESERVED, team)
                taken.add(team, live.model)
    for live in books.lives.values():
        if live.rank == Grade.RESERVED and live.id not in books.settled:
            books.ground.rerank(live, Grade.SPARE)
    for team in books.pools:
        _start_missing(books, taken, team)
    return taken.placed


class _Taken:
    """What is placed, and what each team and each model may still have."""

    def __init__(self, books: Books, dealt: Mapping[tuple[str, str], int]) -> None:
        self.placed: Counter[tuple[str, str]] = Counter()
        self._left = {key: wanted - dealt.get(key, 0) for key, wanted in books.wanted.items()}
        self._more = {model.id: model.ceiling for model in books.models.values()}
        for (_, model), count in dealt.items():
            self._more[model] -= count

    def may_have(self, team: str, model: str) -> bool:
        return self._left.get((team, model), 0) > 0 and self._more[model] > 0

    def add(self, team: str, model: str) -> None:
        self.placed[team, model] += 1
        self._left[team, model] -= 1
        self._more[model] -= 1


def _start_missing(books: Books, taken: _Taken, team: str) -> None:
    """The team's models take turns, until nothing more fits on what it has reserved."""
    turn = deque(books.claimed.get(team, ()))
    while turn:
        model = turn.popleft()
        place = books.search(books.shapes[model], (books.pools[team],), Grade.RESERVED) if taken.may_have(team, model) else None
        if place:
            books.start(model, team, *place, Grade.RESERVED)
            taken.add(team, model)
            turn.append(model)


def _at_home(books: Books) -> dict[str, list[Live]]:
    """What stands wholly on one team's reserved GPUs and keeps no floor, by that team."""
    found: dict[str, list[Live]] = {}
    for live in books.lives.values() if books.pools else ():
        holder = books.holder[live.cells[0]]
        here = holder and live.rank < DRAINING and live.id not in books.settled
        if holder and here and all(other == holder for other in books.holders(live)):
            found.setdefault(holder, []).append(live)
    return found
