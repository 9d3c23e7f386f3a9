"""What the ledger keeps of a call."""

from __future__ import annotations

import msgspec


class Entry(msgspec.Struct, array_like=True, gc=False):
    """One call in the ledger. Times in seconds; `queue_s` and `first_byte_s` since the call came, None if it never got there."""

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
