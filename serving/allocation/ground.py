"""What stands on which GPU, and where there would be room if those of a higher grade number had to go.

A *level* counts those whose rank is at most its own: level DRAINING counts everything (its room is free now), level SPARE what
does not drain, level BORROWED what would be left if all that is SPARE went, and so on down to level FLOOR.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from serving.allocation.fleet import WHOLE
from serving.allocation.replica import Grade, Phase, Replica
from serving.allocation.rooms import Rooms, Slice
from serving.allocation.shape import Shape

DRAINING = int(Grade.SPARE) + 1  # the rank of what drains
FREE_NOW = DRAINING


class Live:
    """A replica while a plan is made."""

    __slots__ = ("cells", "due", "gpus", "grade", "id", "model", "node", "old", "phase", "rank", "shape", "team", "until")

    def __init__(self, id_: str, model: str, team: str, shape: Shape, cells: tuple[int, ...], grade: Grade) -> None:
        self.id, self.model, self.team, self.shape, self.cells, self.grade = id_, model, team, shape, cells, grade
        self.node, self.gpus = "", cells
        self.phase = Phase.PROMISED  # a new one, until it is known that nothing drains there
        self.until: float | None = None
        self.rank = int(grade)
        self.old: Replica | None = None  # as it was before this plan; None if the plan begins it
        self.due: tuple[Grade, str] | None = None  # the grade and kind of GPU that its team is entitled to

    @classmethod
    def of(cls, replica: Replica, cells: tuple[int, ...]) -> Live:
        live = cls(replica.id, replica.model, replica.team, replica.shape, cells, replica.grade)
        live.node, live.gpus, live.old = replica.node, replica.gpus, replica
        live.phase, live.until = replica.phase, replica.until
        if live.phase is Phase.DRAINING:
            live.rank = DRAINING
        return live


class Ground:
    """The GPUs with what stands on them."""

    def __init__(self, cells: int, slices: Sequence[Slice]) -> None:
        self.on: list[list[Live]] = [[] for _ in range(cells)]
        self.slices = slices
        self.slice_of = [-1] * cells
        for number, slice_ in enumerate(slices):
            for cell in slice_.cells:
                self.slice_of[cell] = number
        self._rooms: dict[int, Rooms] = {}
        self._count = [0] * (DRAINING + 1)

    def add(self, live: Live) -> None:
        self._count[live.rank] += 1
        for cell in live.cells:
            self.on[cell].append(live)
        self._change(live, live.shape.hundredths)

    def remove(self, live: Live) -> None:
        self._count[live.rank] -= 1
        for cell in live.cells:
            self.on[cell].remove(live)
        self._change(live, -live.shape.hundredths)

    def rerank(self, live: Live, rank: int) -> None:
        if live.rank != rank:
            self.remove(live)
            live.rank = rank
            self.add(live)

    def _change(self, live: Live, hundredths: int) -> None:
        for level, rooms in self._rooms.items():
            if live.rank <= level:
                for cell in live.cells:
                    rooms.change(cell, hundredths)

    def find(self, level: int, pool: int, shape: Shape) -> tuple[int, ...] | None:
        """GPUs for the shape, those first whose use disturbs least; None if the level has no room in the pool."""
        found = self._level(level).find(pool, shape.kind, shape.gpus, shape.hundredths)
        if found is None or len(found) == shape.gpus:
            return found
        if level == FREE_NOW:
            return found[: shape.gpus]
        return tuple(sorted(sorted(found, key=self._disturbed)[: shape.gpus]))

    def levels(self, lowest: int) -> list[int]:
        """From what is free now down to `lowest`, without those that have no more room than the one before."""
        return [level for level in range(FREE_NOW, lowest - 1, -1) if level == FREE_NOW or self._count[level + 1]]

    def in_the_way(self, cells: Iterable[int], shape: Shape) -> list[Live]:
        """The fewest that must go, highest rank first, so that the shape fits on these GPUs."""
        going: list[Live] = []
        for cell in cells:
            excess = shape.hundredths - WHOLE
            for live in self.on[cell]:
                if live.rank < DRAINING and live not in going:
                    excess += live.shape.hundredths
            if excess <= 0:
                continue
            standing = [live for live in self.on[cell] if live.rank < DRAINING and live not in going]
            for live in sorted(standing, key=lambda live: (-live.rank, -live.shape.hundredths, live.id)):
                if excess > 0:
                    going.append(live)
                    excess -= live.shape.hundredths
        return going

    def _disturbed(self, cell: int) -> tuple[int, int, int]:
        standing = sum([live.shape.hundredths for live in self.on[cell] if live.rank < DRAINING])
        return standing, len(self.on[cell]), cell

    def _level(self, level: int) -> Rooms:
        rooms = self._rooms.get(level)
        if rooms is None:
            used = [0] * len(self.on)
            for cell, standing in enumerate(self.on):
                for live in standing:
                    if live.rank <= level:
                        used[cell] += live.shape.hundredths
            rooms = self._rooms[level] = Rooms(self.slices, self.slice_of, used)
        return rooms
