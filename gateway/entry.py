"""What the ledger keeps of a call."""

from __future__ import annotations

import msgspec


class Entry(msgspec.Struct, array_like=True, gc=False):
    """One call in the ledger. Times in seconds; `queue_s` and `first_byte_s` since the call came, None if it never got there.

    Journals hold an entry's fields in this order, so new ones come last. `cached_tokens` are part of the prompt's,
    `reasoning_tokens` of the completion's. `cost_ukrw` is in millionths of a KRW, net, so that sums of it are exact. `energy_wh`
    is always an estimate; `estimated` says that the token counts are too, since the engine told none. `continued` is how often
    another replica went on with the answer.

    `asked` is the model that was asked for, where that has a rollout, and empty otherwise: `model` is then the version that
    worked. Of no tenant are a rollout's own calls, whose project says what they are: SHADOW or RETURNED. They cost nothing.
    """

    id: str
    started_at: float
    endpoint: str
    model: str
    stream: bool
    tenant: str = ""
    project: str = ""
    key_id: str = ""
    replica: str | None = None
    status: int = 0
    outcome: str = "open"
    error_code: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    queue_s: float | None = None
    first_byte_s: float | None = None
    duration_s: float = 0.0
    tier: str = ""
    reasoning_tokens: int = 0
    cost_ukrw: int = 0
    energy_wh: float = 0.0
    estimated: bool = False
    continued: int = 0
    asked: str = ""


NOBODY = ""  # the tenant of what is no client's call
SHADOW = "shadow"  # a copy of a client's call, whose answer nobody saw
RETURNED = "returned"  # what the candidate made of a client's call that went back to the model it asked for
