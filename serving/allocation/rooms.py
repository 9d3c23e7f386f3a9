"""Where there is room, best fit first: in the slice with the fewest free GPUs that suffice, on the GPU with the least free part.

So whole GPUs and whole nodes stay free for those who need them (best fit; D. S. Johnson, 1974). Slices and GPUs lie on shelves,
by how much is free on them; a bit for each shelf that is not empty makes the next larger one a matter of one instruction.
Looking costs O(log n), and so does a change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from serving.allocation.fleet import WHOLE


@dataclass(frozen=True, slots=True)
class Slice:
    """GPUs of one node, by their number in the fleet, that belong together. `pools` are those in which they are looked for."""

    node: int
    kind: str
    pools: tuple[int, ...]
    cells: tuple[int, ...]


class _Shelves:
    """Numbers (of slices, of GPUs), by how much is free. An entry that is out of date is thrown away when it is met."""

    __slots__ = ("heaps", "mask")

    def __init__(self) -> None:
        self.heaps: dict[int, list[int]] = {}
        self.mask = 0

    def load(self, number: int, free: int) -> None:
        """As `put`, before the first look; `settle` comes after."""
        self.heaps.setdefault(free, []).append(number)
        self.mask |= 1 << free

    def settle(self) -> None:
        for heap in self.heaps.values():
            heapify(heap)

    def put(self, number: int, free: int) -> None:
        heap = self.heaps.get(free)
        if heap is None:
            heap = self.heaps[free] = []
        heappush(heap, number)
        self.mask |= 1 << free

    def best(self, least: int, free_of: Sequence[int]) -> int | None:
        """The number with the least free, but at least so much; the lowest of several."""
        while mask := self.mask >> least:
            free = least + (mask & -mask).bit_length() - 1
            heap = self.heaps[free]
            while heap:
                if free_of[heap[0]] == free:
                    return heap[0]
                heappop(heap)
            self.mask &= ~(1 << free)
        return None


class Rooms:
    """The room that is left when `used` hundredths of each GPU are taken."""

    __slots__ = ("_by_part", "_by_whole", "_free", "_slice_of", "_slices", "_whole", "used")

    def __init__(self, slices: Sequence[Slice], slice_of: Sequence[int], used: list[int]) -> None:
        self.used = used
        self._slices, self._slice_of = slices, slice_of
        self._free = [WHOLE - taken for taken in used]
        self._whole = [sum(used[cell] == 0 for cell in slice_.cells) for slice_ in slices]
        self._by_whole: dict[tuple[int, str], _Shelves] = {}
        self._by_part: dict[tuple[int, str], _Shelves] = {}
        for number, slice_ in enumerate(slices):
            for pool in slice_.pools:
                self._stock(pool, number, slice_)
        for shelves in (*self._by_whole.values(), *self._by_part.values()):
            shelves.settle()

    def _stock(self, pool: int, number: int, slice_: Slice) -> None:
        by_whole = self._by_whole.setdefault((pool, slice_.kind), _Shelves())
        by_part = self._by_part.setdefault((pool, slice_.kind), _Shelves())
        if self._whole[number]:
            by_whole.load(number, self._whole[number])
        for cell in slice_.cells:
            if 0 < self._free[cell] < WHOLE:
                by_part.load(cell, self._free[cell])

    def change(self, cell: int, hundredths: int) -> None:
        """So much more of the GPU is taken; less, if below 0."""
        before, now = self.used[cell], self.used[cell] + hundredths
        self.used[cell] = now
        self._free[cell] = free = WHOLE - now
        number = self._slice_of[cell]
        slice_ = self._slices[number]
        if (before == 0) != (now == 0):
            self._whole[number] = whole = self._whole[number] + (1 if now == 0 else -1)
            if whole:
                for pool in slice_.pools:
                    self._by_whole[pool, slice_.kind].put(number, whole)
        if 0 < free < WHOLE:
            for pool in slice_.pools:
                self._by_part[pool, slice_.kind].put(cell, free)

    def find(self, pool: int, kind: str, gpus: int, hundredths: int) -> tuple[int, ...] | None:
        """GPUs in one slice of the pool with this room: the one GPU for a part, or all of the slice's free GPUs to choose
        `gpus` of.
        """
        if hundredths < WHOLE:
            shelves = self._by_part.get((pool, kind))
            cell = shelves.best(hundredths, self._free) if shelves else None
            if cell is not None:
                return (cell,)
        shelves = self._by_whole.get((pool, kind))
        number = shelves.best(gpus, self._whole) if shelves else None
        if number is None:
            return None
        return tuple(cell for cell in self._slices[number].cells if self.used[cell] == 0)
