"""Which of the replicas that run already fill which right, so that as little as possible has to move.

A right is best filled by a replica of the same team on the kind of GPU that the team is entitled to; then by one of the same
team on another kind, which stays until somebody who is entitled to that place needs it; then by one that another team has no
more right to: the model is the same, only the books change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet

from serving.allocation.books import Books
from serving.allocation.ground import Live
from serving.allocation.replica import Grade
from serving.allocation.sharing import Right

_Key = Callable[[str, str], tuple[str, ...]]  # of a team and a kind of GPU: what must be the same

_PASSES: tuple[_Key, ...] = (
    lambda team, kind: (team, kind),
    lambda team, kind: (team,),
    lambda team, kind: (kind,),
    lambda team, kind: (),
)


def match(books: Books, rights: Mapping[Right, int]) -> dict[Right, int]:
    """Gives rights to what stands and has none; returns those that are still to be filled."""
    by_model: dict[str, dict[Right, int]] = {}
    for right, count in sorted(rights.items(), key=lambda item: (item[0][3], item[0])):
        by_model.setdefault(right[1], {})[right] = count
    missing: dict[Right, int] = {}
    for model, unfilled in by_model.items():
        free = [live for live in books.standing(model) if live.id not in books.settled]
        free.sort(key=lambda live: (live.grade, live.id))
        for key in _PASSES:
            if free:
                free = _pass(books, free, unfilled, key)
        missing.update((right, count) for right, count in unfilled.items() if count)
    return missing


def match_again(books: Books, rights: Mapping[Right, int], models: AbstractSet[str]) -> dict[Right, int]:
    """The rights of these models may fit better together than one by one. Nothing moves; returns what is to be filled."""
    for model in models:
        for live in books.standing(model):
            if live.rank >= Grade.SHARE:
                books.settled.discard(live.id)
    missing = match(books, {right: count for right, count in rights.items() if right[1] in models})
    for model in sorted(models):
        for live in books.standing(model):
            if live.id not in books.settled:
                books.grant(live, Grade.SPARE, live.team)
    return missing


def _pass(books: Books, free: list[Live], rights: dict[Right, int], key: _Key) -> list[Live]:
    """Those replicas and rights find each other whose key is the same. Returns the replicas that are left."""
    waiting: dict[tuple[str, ...], list[Right]] = {}
    for right in reversed(list(rights)):
        if rights[right]:
            waiting.setdefault(key(right[0], right[2]), []).append(right)
    if not waiting:
        return free
    left: list[Live] = []
    for live in free:
        queue = waiting.get(key(live.team, live.shape.kind))
        if not queue:
            left.append(live)
            continue
        right = queue[-1]
        team, _, kind, grade = right
        # On another kind of GPU than the right is for, it stays on sufferance.
        books.grant(live, grade if live.shape.kind == kind else Grade.SPARE, team)
        live.due = (grade, kind)
        rights[right] -= 1
        if not rights[right]:
            queue.pop()
    return left
