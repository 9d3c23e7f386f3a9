"""Which replica? The one with the fewest of our calls in flight; among equals, the one that was chosen longest ago."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Generic, Protocol, TypeVar


class Candidate(Protocol):
    @property
    def id(self) -> str: ...


R = TypeVar("R", bound=Candidate)


class LeastLoaded(Generic[R]):
    """Keeps the count of calls in flight by replica id. Ids that are no longer offered are forgotten when idle."""

    def __init__(self) -> None:
        self._in_flight: dict[str, int] = {}
        self._chosen_at: dict[str, int] = {}
        self._turn = 0

    def choose(self, ready: Iterable[R], tried: Collection[str] = ()) -> R | None:
        """The best of `ready` less those in `tried`, or None if none is left."""
        untried = [replica for replica in ready if replica.id not in tried]
        return min(untried, key=self._rank, default=None)

    def begin(self, replica_id: str) -> None:
        self._turn += 1
        self._in_flight[replica_id] = self._in_flight.get(replica_id, 0) + 1
        self._chosen_at[replica_id] = self._turn

    def end(self, replica_id: str) -> None:
        left = self._in_flight[replica_id] - 1
        if left:
            self._in_flight[replica_id] = left
        else:
            del self._in_flight[replica_id]

    def forget(self, known: Collection[str]) -> None:
        """Drop the memory of replicas that are not `known` any more."""
        self._chosen_at = {replica_id: turn for replica_id, turn in self._chosen_at.items() if replica_id in known}

    def in_flight(self, replica_id: str) -> int:
        return self._in_flight.get(replica_id, 0)

    def _rank(self, replica: R) -> tuple[int, int]:
        return self._in_flight.get(replica.id, 0), self._chosen_at.get(replica.id, 0)
