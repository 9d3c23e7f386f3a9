"""Is this replica ready for calls? What its probes, its connections and its calls say, put together.

    starting ──probe answered──▶ ready ──connection broke, probe refused, or three probes in a row silent──▶ down
                                 ▲ ▲ │                                                                        │
                                 │ │ │     probe answered, and there is  ┌── no pause ──▶ ready               │
                                 │ │ │                                   ├── a pause that goes on ──▶ open ◀──┤
                                 │ │ │                                   └── a pause that is over ──▶ trial ◀─┘
                                 │ │ └── five calls in a row failed ──▶ open ──pause over, probe answered──▶ trial
                                 │ │                                     ▲                                    │ │
                                 │ └────────────── succeeded ────────────│────────────────────────────────────┤ │ a call
                                 │                                       ├── failed: twice the pause ─────────┘ │ began
                                 └── succeeded ── trying ◀───────────────│──────────────────────────────────────┘
                                                    └── failed ──────────┘

Ready and trial replicas take calls, a trial one a single one: it is then trying, and on trial again if that call says nothing
for as long as the pause was. From open, trial and trying the same leads to down as from ready. Only a success ends the pauses.

A death is learned from connections first: the list shows a killed replica for seconds more. A probe without an answer in time
may only mean that the replica is busy, so one is not enough. A replica whose probes are answered while its calls fail is one
that only its calls can judge: hence the trial. A draining replica refuses its probes; calls that it has go on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

SILENT_PROBES = 3
FAILED_CALLS = 5
WINDOW_S = 60.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 60.0


class Health(Enum):
    STARTING = "starting"
    READY = "ready"
    DOWN = "down"
    OPEN = "open"
    TRIAL = "trial"
    TRYING = "trying"


class Probe(Enum):
    """What came of asking a replica for its health."""

    ANSWERED = "answered"
    SILENT = "silent"
    REFUSED = "refused"


_TAKES_CALLS = (Health.READY, Health.TRIAL)
_PAUSED = (Health.DOWN, Health.OPEN, Health.TRYING)


@dataclass(frozen=True, slots=True)
class Breaker:
    """One replica's health; every event gives the next one, or the same where it changes nothing."""

    health: Health = Health.STARTING
    silent: int = 0
    failed: int = 0
    failing_since: float = 0.0
    pause_s: float = 0.0
    pause_until: float = 0.0

    @property
    def takes_calls(self) -> bool:
        return self.health in _TAKES_CALLS

    @property
    def is_settled(self) -> bool:
        """Neither that a call began nor that it succeeded is news."""
        return self.health is Health.READY and not self.failed

    @property
    def is_alive(self) -> bool:
        """Its probes are answered, whatever its calls say."""
        return self.health not in (Health.STARTING, Health.DOWN)

    def probed(self, probe: Probe, now: float) -> Breaker:
        if probe is Probe.ANSWERED:
            return self._answered(now)
        if probe is Probe.REFUSED or self.silent + 1 >= SILENT_PROBES:
            return self._down()
        return replace(self, silent=self.silent + 1)

    def connection_broke(self, now: float) -> Breaker:
        """A call could not be handed over, or its answer broke off. Only a probe brings the replica back.

        Of the many calls that one death breaks, the first counts as failed.
        """
        return self.call_failed(now)._down()

    def call_began(self, now: float) -> Breaker:
        """To be told before the call is sent, so that a trial replica gets no second one."""
        if self.health is not Health.TRIAL:
            return self
        return replace(self, health=Health.TRYING, pause_until=now + self.pause_s)

    def call_succeeded(self) -> Breaker:
        """The head of a good answer came."""
        if self.is_settled:
            return self
        if self.takes_calls or self.health is Health.TRYING:
            return Breaker(Health.READY, self.silent)
        return self

    def call_failed(self, now: float) -> Breaker:
        """The replica answered that it has failed (5xx, but not that it is full), or did not answer in time."""
        if self.health in (Health.TRIAL, Health.TRYING):
            return self._open(min(2 * self.pause_s, LONGEST_PAUSE_S), now)
        if self.health is not Health.READY:
            return self
        if self.failed == 0 or now - self.failing_since > WINDOW_S:
            return replace(self, failed=1, failing_since=now)
        if self.failed + 1 < FAILED_CALLS:
            return replace(self, failed=self.failed + 1)
        return self._open(FIRST_PAUSE_S, now)

    def _answered(self, now: float) -> Breaker:
        if self.health in _PAUSED and self.pause_s:
            return replace(self, health=self._paused(now), silent=0)
        if self.takes_calls and not self.silent:
            return self
        return replace(self, health=self.health if self.takes_calls else Health.READY, silent=0)

    def _paused(self, now: float) -> Health:
        if now >= self.pause_until:
            return Health.TRIAL
        return Health.OPEN if self.health is Health.DOWN else self.health

    def _down(self) -> Breaker:
        return replace(self, health=Health.STARTING if self.health is Health.STARTING else Health.DOWN, silent=0)

    def _open(self, pause_s: float, now: float) -> Breaker:
        return replace(self, health=Health.OPEN, failed=0, pause_s=pause_s, pause_until=now + pause_s)
