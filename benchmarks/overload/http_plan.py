"""What the load generator is told, and what it hands back. Shapes only."""

from __future__ import annotations

import msgspec


class TierLoad(msgspec.Struct, frozen=True):
    """One tier's part of the load. `keys`: its tenants', taken in turn. `target_s`: by when its first token has to be there."""

    name: str
    share: float
    target_s: float
    patience_s: float | None
    keys: list[str]


class LoadPlan(msgspec.Struct, frozen=True, tag="open"):
    """Calls due at random moments, `per_s` on average, whatever becomes of them, to the ports in turn.

    What is due between `warm_s` and `warm_s + seconds` is measured; the load goes on for `tail_s` after that.
    """

    ports: list[int]
    path: str
    model: str
    tiers: list[TierLoad]
    says_tier: bool
    exact: bool
    per_s: float
    warm_s: float
    seconds: float
    tail_s: float
    seed: int


class ClosedPlan(msgspec.Struct, frozen=True, tag="closed"):
    """So many clients, each asking again when it has its answer: what the engines can do at most."""

    load: LoadPlan
    clients: int


class Call(msgspec.Struct, array_like=True):
    """One call. Times are in seconds from when it was due; None for what did not happen before the end.

    `tokens` came while it was measured, whenever the call was due; `status` 0: no answer's head came. `retry_after_s` is the
    header of a refusal; `error` the code of an error in the stream or of a refusal.
    """

    tier: int
    due_s: float
    late_s: float
    status: int = 0
    first_s: float | None = None
    ended_s: float | None = None
    tokens: int = 0
    retry_after_s: float | None = None
    error: str = ""
    broken: bool = False


class LoadReport(msgspec.Struct):
    calls: list[Call]
    processor_s: float
    took_s: float


class ClosedReport(msgspec.Struct):
    """Of `seconds`: whole calls and their tokens."""

    calls: int
    tokens: int
    failed: int
    seconds: float
