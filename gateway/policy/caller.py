"""Which of those who were told to come again a call is from: those of one model, by what they send.

Nothing in OpenAI's API names a client for sure, but whoever was turned away sends the same once more: clients repeat the very
bytes, those of `user`, `safety_identifier` and `prompt_cache_key` among them where an application sets them. So a caller is known
by a hash of his key and his request's bytes (his `Like`), and a user of the same application who asks something else for the
first time is not taken for him. It is asked for only while somebody is expected, or where somebody is turned away.

Rejected: to go by `user` or `prompt_cache_key` alone. Many applications put one word there for all their users, who would then
have one promise between them. Who sends another prompt when he comes again, such as one with the time of day in it, is new each
time, and stands behind those who are not.

Calls that are alike to the byte are of equal worth: as many of them as were told have their turn, whichever of them come.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

Like = Callable[[], int]

STRANGER = "?"  # whoever nobody expects; no promise is ever made to that name
_EARLY_S = 0.5  # a promise is taken up no earlier than this before it is due, and counts for nothing after the grace
_GRACE_S, _GRACE_SHARE = 2.0, 0.25


class Callers:
    """Each promise has a name of its own, by which the waiting room knows who comes."""

    __slots__ = ("_lapse", "_names", "_told")

    def __init__(self) -> None:
        self._names = 0
        self._told: dict[int, list[tuple[float, float, str]]] = {}  # when due, when over, the name; a heap for each likeness
        self._lapse: list[tuple[float, int]] = []

    @property
    def expected(self) -> bool:
        """Whether anybody was told to come again who may still come."""
        return bool(self._lapse)

    def name(self) -> str:
        """A new one."""
        self._names += 1
        return str(self._names)

    def tell(self, like: int, name: str, told_s: float, now: float) -> None:
        """Who sends the like of this was told to come again in so many seconds, under that name."""
        over = now + told_s + max(_GRACE_S, _GRACE_SHARE * told_s)
        heappush(self._told.setdefault(like, []), (now + told_s, over, name))
        heappush(self._lapse, (over, like))

    def come(self, like: int, now: float) -> str:
        """Who this is: the first of those that were told to come about now and sent the like of this, else a stranger."""
        self._forget(now)
        told = self._told.get(like, [])
        name = STRANGER
        while name == STRANGER and told and told[0][0] - _EARLY_S <= now:
            _, over, expected = heappop(told)
            if over > now:
                name = expected
        if not told:
            self._told.pop(like, None)
        return name

    def _forget(self, now: float) -> None:
        lapse = self._lapse
        while lapse and lapse[0][0] <= now:
            _, like = heappop(lapse)
            told = self._told.get(like, [])
            while told and told[0][1] <= now:
                heappop(told)
            if not told:
                self._told.pop(like, None)
