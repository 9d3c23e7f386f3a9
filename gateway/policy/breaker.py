"""Is this replica ready for calls? What its probes and its connections say, put together.

    starting ──probe answered──▶ ready ──connection broke, or three probes in a row without an answer──▶ down
                                   ▲────────────────────── probe answered ──────────────────────────────────┘

A death is learned from connections first: the list shows a killed replica for seconds more. A probe without an answer in time
may only mean that the replica is busy, so one is not enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

SILENT_PROBES = 3


class Health(Enum):
    STARTING = "starting"
    READY = "ready"
    DOWN = "down"


class Probe(Enum):
    """What came of asking a replica for its health."""

    ANSWERED = "answered"
    SILENT = "silent"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Breaker:
    """One replica's health; every event gives the next one."""

    health: Health = Health.STARTING
    silent: int = 0

    def probed(self, probe: Probe) -> Breaker:
        if probe is Probe.ANSWERED:
            return Breaker(Health.READY)
        if probe is Probe.REFUSED or self.silent + 1 >= SILENT_PROBES:
            return self.connection_broke()
        return Breaker(self.health, self.silent + 1)

    def connection_broke(self) -> Breaker:
        """A call could not be handed over, or its answer broke off. Only a probe brings the replica back."""
        return Breaker(Health.STARTING if self.health is Health.STARTING else Health.DOWN)
