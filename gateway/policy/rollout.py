"""Which version of a model answers a call, while a candidate is on trial: the model itself, or the candidate in its name.

A caller (see `gateway.protocol.conversation`) is put to a point between 0 and 1 by a hash, the same in every process and for
good. The candidate's part of that line begins at 0, and the part whose calls are shadowed ends at 1. So a caller stays with its
version, the shares are exact over many callers, and where a share grows by some callers these move and no others. The hash has
the names of both models in it: who was first to try one candidate is not for that reason the first to try the next.

Rejected: a random choice for each call, which would change the version in the middle of a conversation, and a counter (every
tenth call), which several workers would have to share.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b

_BITS = 53  # what a float between 0 and 1 can tell apart


class Version(Enum):
    """Whose turn it is. SHADOW: the model's, and a copy of the call goes to the candidate, whose answer nobody sees."""

    MODEL = "model"
    CANARY = "canary"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True)
class Rollout:
    """`canary` and `shadow` are shares of the model's callers, which together are no more than all of them.

    With `by_key` a key is one caller, with all of its conversations.
    """

    model: str
    candidate: str
    canary: float = 0.0
    shadow: float = 0.0
    by_key: bool = False

    def version(self, caller: bytes) -> Version:
        at = self.point(caller)
        if at < self.canary:
            return Version.CANARY
        return Version.SHADOW if at >= 1.0 - self.shadow else Version.MODEL

    def point(self, caller: bytes) -> float:
        """Where this caller stands: from 0 up to 1, without 1."""
        names = f"{self.model}\0{self.candidate}".encode()
        key = blake2b(names, digest_size=32).digest()
        digest = blake2b(caller, digest_size=8, key=key).digest()
        return float(int.from_bytes(digest, "big") >> (64 - _BITS)) / float(1 << _BITS)


def is_idle(places: int, running: int, waiting: int) -> bool:
    """Whether a candidate has time for a shadow: nobody waits for it, and with it no more than half of its places are taken, so
    that clients' own calls find room. Of a single place it may have all.
    """
    return waiting == 0 and running + 1 <= max(1, places // 2) and places > 0
