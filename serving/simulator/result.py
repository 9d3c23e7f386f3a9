"""What came of a run: a row for each call, in compact arrays, and what the fleet was like from moment to moment. Facts only;
`report` makes figures of them.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from enum import IntEnum


class End(IntEnum):
    """How a call ended: exactly one of them. Who was turned away and came again counts by what became of him at last."""

    UNDER_WAY = 0  # at the end of the run it waited, ran, or was to come again
    SERVED = 1
    TURNED_AWAY = 2  # by a limit, by a full waiting room, or at the end of its patience
    FAILED = 3  # its replica was lost, and there was no other in time


def _doubles() -> array[float]:
    return array("d")


def _words() -> array[int]:
    return array("I")


def _bytes() -> array[int]:
    return array("B")


@dataclass(slots=True)
class Calls:
    """A row a call, in the order in which they came. Times are seconds since the beginning; nan: never.

    came, last_came        the first time, and the last (after it was turned away and told when to come again)
    started, first, ended  when it was sent to an engine, had its first token, was over
    model, tenant          indices into the result's names
    output_tokens          of its answer; fewer than it wanted where it was capped
    turned                 how often it was turned away
    told_s                 what it was told the last time it was turned away; nan: never
    resumed                how often it went on elsewhere because its replica was gone
    """

    came: array[float] = field(default_factory=_doubles)
    last_came: array[float] = field(default_factory=_doubles)
    started: array[float] = field(default_factory=_doubles)
    first: array[float] = field(default_factory=_doubles)
    ended: array[float] = field(default_factory=_doubles)
    target_s: array[float] = field(default_factory=_doubles)
    told_s: array[float] = field(default_factory=_doubles)
    model: array[int] = field(default_factory=_words)
    tenant: array[int] = field(default_factory=_words)
    prompt_tokens: array[int] = field(default_factory=_words)
    output_tokens: array[int] = field(default_factory=_words)
    turned: array[int] = field(default_factory=_words)
    resumed: array[int] = field(default_factory=_words)
    end: array[int] = field(default_factory=_bytes)

    def __len__(self) -> int:
        return len(self.came)

    def first_token_s(self, row: int) -> float:
        """From when it came (the last time) to its first token; nan: it never had one."""
        return self.first[row] - self.last_came[row]

    def whole_wait_s(self, row: int) -> float:
        """From when it came for the first time to its first token; nan: it never had one."""
        return self.first[row] - self.came[row]

    def was_good(self, row: int) -> bool:
        """Served, and its first token there in time after it came the last time."""
        return self.end[row] == End.SERVED and self.first_token_s(row) <= self.target_s[row]


@dataclass(slots=True)
class ModelSeries:
    """One figure a moment. gpu_s, came, turned_away, over_limit, evicted, failed, served, tokens: in all, since the beginning.

    waiting, running           calls in the waiting room; calls with a place
    ready, starting, draining  replicas
    wanted                     replicas that the autoscaler asks for; `refused`: of those the allocator has no GPUs for
    gpu_s                      GPU-seconds that the model's replicas have held, cold starts included
    turned_away                by the waiting room; of those `evicted` had waited there. over_limit: by their tenant's limits
    tokens                     of prompts and answers, of calls that were served
    """

    waiting: array[int] = field(default_factory=_words)
    running: array[int] = field(default_factory=_words)
    ready: array[int] = field(default_factory=_words)
    starting: array[int] = field(default_factory=_words)
    draining: array[int] = field(default_factory=_words)
    wanted: array[int] = field(default_factory=_words)
    refused: array[int] = field(default_factory=_words)
    came: array[int] = field(default_factory=_words)
    turned_away: array[int] = field(default_factory=_words)
    evicted: array[int] = field(default_factory=_words)
    over_limit: array[int] = field(default_factory=_words)
    failed: array[int] = field(default_factory=_words)
    served: array[int] = field(default_factory=_words)
    tokens: array[float] = field(default_factory=_doubles)
    gpu_s: array[float] = field(default_factory=_doubles)


@dataclass(slots=True)
class Result:
    """`at`: the moments of all `series`, which are by model. `tiers`: of `tenants`, by the same index. `lost`: replicas lost with
    their node, `broke`: that failed by themselves, both by model. `took_s` is real time, and no part of what is compared.
    """

    scenario: str
    seed: int
    duration_s: float
    models: tuple[str, ...]
    tenants: list[str] = field(default_factory=list)
    tiers: list[str] = field(default_factory=list)
    calls: Calls = field(default_factory=Calls)
    at: array[float] = field(default_factory=_doubles)
    series: dict[str, ModelSeries] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    broke: dict[str, int] = field(default_factory=dict)
    preemptions: int = 0
    events: int = 0
    took_s: float = math.nan

    def rows(self, model: str | None = None) -> Iterator[int]:
        """Of all calls, or of one model's."""
        if model is None:
            yield from range(len(self.calls))
            return
        number = self.models.index(model)
        yield from (row for row, of in enumerate(self.calls.model) if of == number)

    def fingerprint(self) -> str:
        """The same for two runs whose every figure is the same."""
        told = hashlib.sha256(repr((self.scenario, self.seed, self.duration_s, self.models, self.tenants, self.tiers)).encode())
        tables: list[Calls | ModelSeries] = [self.calls, *(self.series[model] for model in self.models)]
        for columns in tables:
            for column in fields(columns):
                told.update(getattr(columns, column.name).tobytes())
        told.update(self.at.tobytes())
        told.update(repr((sorted(self.lost.items()), sorted(self.broke.items()), self.preemptions, self.events)).encode())
        return told.hexdigest()
