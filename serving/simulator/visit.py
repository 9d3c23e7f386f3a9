"""One call that a client makes: what the simulation is fed with, in the order of time. `crowd` makes them of the traffic."""

from __future__ import annotations

import math
from typing import NamedTuple

from gateway.policy.limits import Tier


class Visit(NamedTuple):
    """at               seconds since the beginning
    expected_tokens  what the gateway takes for the length of the answer, which it cannot know: `output_tokens` are what it gets
    target_s         by when, from its arrival, the first token has to be there
    patience_s       how long it would wait at most, as the request says; None: as long as the waiting room's rules allow
    weight           its tenant's within the tier
    comes_again      it does what Retry-After says, as often as it is told
    caller           which of the tenant's clients it is, so that one who comes again is known; empty: any of them
    """

    at: float
    tenant: str
    tier: Tier
    model: str
    prompt_tokens: int
    output_tokens: int
    expected_tokens: int
    target_s: float = math.inf
    patience_s: float | None = None
    weight: float = 1.0
    comes_again: bool = False
    caller: str = ""
