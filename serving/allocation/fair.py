"""Last, fair shares are carried out, and what is then still idle is used by whoever can.

A right that has no place yet may displace whoever stands on the right's own kind of GPU with less right; on other kinds it
takes only what is free. Each displacement puts a right where it belongs, so this ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from heapq import heapify, heappop, heappush

from serving.allocation.books import ANYWHERE, Books
from serving.allocation.ground import FREE_NOW, Live
from serving.allocation.matching import match_again
from serving.allocation.replica import Grade
from serving.allocation.shape import Shape
from serving.allocation.sharing import Right

_Entry = tuple[Grade, int, str, str, str]  # grade, -size, model, team, kind
_ONCE_DRAINED = FREE_NOW - 1
_MOST_ROUNDS = 100  # two or three are the rule


class Fair:
    """Places the rights that are `missing`; `touched` are the models of which not all is on its own kind."""

    def __init__(self, books: Books, missing: Mapping[Right, int]) -> None:
        self._books = books
        self._queue: list[_Entry] = []
        self._failed: list[_Entry] = []
        self._in_vain: set[tuple[Grade, str, str]] = set()
        self.touched = {model for _, model, _, _ in missing if any(map(_is_elsewhere, books.standing(model)))}
        for (team, model, kind, grade), count in missing.items():
            self._queue += [(grade, -self._size(model, kind), model, team, kind)] * count
        heapify(self._queue)

    def place(self) -> None:
        """Until nothing changes: once somebody had to go, those who found no room try again, for more may be free than was
        needed.
        """
        while self._queue:
            gone = len(self._books.dismissed)
            while self._queue:
                self._try(heappop(self._queue))
            if len(self._books.dismissed) > gone:
                self._queue, self._failed = self._failed, []
                heapify(self._queue)
                self._in_vain.clear()

    @property
    def failed(self) -> dict[Right, int]:
        """The rights for which there is no room."""
        return Counter((team, model, kind, grade) for grade, _, model, team, kind in self._failed)

    def _try(self, entry: _Entry) -> None:
        grade, _, model, team, kind = entry
        place = None if (grade, model, kind) in self._in_vain else self._room(model, kind, grade)
        if place is None:
            self._in_vain.add((grade, model, kind))
            self._failed.append(entry)
            self.touched.add(model)
            return
        shape, cells = place
        gone = len(self._books.dismissed)
        live = self._books.start(model, team, shape, cells, grade if shape.kind == kind else Grade.SPARE)
        live.due = (grade, kind)
        if _is_elsewhere(live):
            self.touched.add(model)
        for other, _ in self._books.dismissed[gone:]:
            self._displaced(other)

    def _displaced(self, live: Live) -> None:
        self._in_vain.clear()
        self.touched.add(live.model)
        if live.due:
            grade, kind = live.due
            heappush(self._queue, (grade, -self._size(live.model, kind), live.model, live.team, kind))

    def _size(self, model: str, kind: str) -> int:
        return min(shape.size for shape in self._books.shapes[model] if shape.kind == kind)

    def _room(self, model: str, kind: str, grade: Grade) -> tuple[Shape, tuple[int, ...]] | None:
        own = [shape for shape in self._books.shapes[model] if shape.kind == kind]
        others = [shape for shape in self._books.shapes[model] if shape.kind != kind]
        return (
            self._books.search(own, ANYWHERE, _ONCE_DRAINED)
            or self._books.search(others, ANYWHERE, FREE_NOW)
            or self._books.search(own, ANYWHERE, grade, _ONCE_DRAINED - 1)
        )


def _is_elsewhere(live: Live) -> bool:
    """On another kind of GPU than its team is entitled to."""
    return live.due is not None and live.due[1] != live.shape.kind


def place_rights(books: Books, rights: Mapping[Right, int], missing: Mapping[Right, int]) -> None:
    """Until every right that is missing is one for which there is no room: rights change hands between the replicas of a model,
    and another one may be missing then.
    """
    for _ in range(_MOST_ROUNDS):
        fair = Fair(books, missing)
        fair.place()
        missing = match_again(books, rights, fair.touched)
        if missing == fair.failed:
            return


def use_the_rest(
    books: Books, wants: Mapping[tuple[str, str], int], more: Mapping[str, int], share: Mapping[str, float]
) -> set[str]:
    """What is free now goes to those who want more than they are entitled to, a replica each in turn, the lowest share first.

    `more` is how many more replicas each model may have. Returns the models that got any.
    """
    left = dict(more)
    turn = sorted((share.get(team, 0.0), team, model, count) for (team, model), count in wants.items() if count > 0)
    full: set[str] = set()
    begun: set[str] = set()
    while turn:
        again = []
        for part, team, model, count in turn:
            place = books.search(books.shapes[model], ANYWHERE, FREE_NOW) if left[model] > 0 and model not in full else None
            if place is None:
                full.add(model)
                continue
            books.start(model, team, *place, Grade.SPARE)
            begun.add(model)
            left[model] -= 1
            if count > 1:
                again.append((part, team, model, count - 1))
        turn = again
    return begun
