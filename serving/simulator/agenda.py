"""What will happen when: one heap for all of a run. Pure; of what is due at one moment, what was noted first happens first."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

What = Callable[[Any], None]
Entry = tuple[float, int, What, Any]


class Agenda:
    """`now` is the virtual time, in seconds since the beginning."""

    __slots__ = ("_numbers", "due", "events", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[Entry] = []
        self.events = 0
        self._numbers = 0

    def at(self, when: float, what: What, of: Any = None) -> None:
        """`what(of)` is called then."""
        self._numbers += 1
        heappush(self.due, (when, self._numbers, what, of))

    def until(self, when: float) -> None:
        """All that is due by then happens."""
        due = self.due
        while due and due[0][0] <= when:
            self.now, _, what, of = heappop(due)
            self.events += 1
            what(of)
        self.now = when
