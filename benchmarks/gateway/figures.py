"""What was measured, by figure and gateway, one value a round. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import nan
from statistics import median

OTHERS_PERCENT = "others_percent"
CALLS_PER_S = "calls_per_s"
CALLS_FAILED = "calls_failed"
P50_MS = "p50_ms"
ADDED_P50_MS = "added_p50_ms"
HALF_RATE = "half_rate"
ADDED_P99_MS = "added_p99_ms"
LATE_MS = "late_ms"
STREAMS_PER_S = "streams_per_s"
STREAMS_FAILED = "streams_failed"
US_PER_CHUNK = "us_per_chunk"
OPEN_STREAMS = "open_streams"
OPEN_FAILED = "open_streams_failed"
KB_PER_STREAM = "kb_per_open_stream"
SHORT_P99_MS = "short_call_p99_ms_under_open_streams"
SHORT_FAILED = "short_calls_failed"
MEMORY_MB = "memory_mb"
CHURN_CALLS = "churn_calls"
CHURN_ABORTED = "churn_aborted"
CHURN_FAILED = "churn_failed"


MACHINE = "machine"  # what figures belong to that are no gateway's


@dataclass
class Figures:
    """`add` once a round; `of` gives them back in that order, nothing where there is nothing."""

    _values: defaultdict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, figure: str, gateway: str, value: float) -> None:
        self._values[figure, gateway].append(value)

    def of(self, figure: str, gateway: str) -> Sequence[float]:
        return self._values.get((figure, gateway), ())

    def ratios(self, figure: str, gateway: str, other: str) -> list[float]:
        """Round by round, since only what was measured beside each other may be compared.

        Not a number where the other has nothing: whoever answers no call is no measure.
        """
        pairs = zip(self.of(figure, gateway), self.of(figure, other), strict=False)
        return [ours / theirs if theirs > 0 else nan for ours, theirs in pairs]

    def as_table(self) -> dict[str, dict[str, list[float]]]:
        """For keeping: figure, then gateway, then the values."""
        table: dict[str, dict[str, list[float]]] = {}
        for (figure, gateway), values in self._values.items():
            table.setdefault(figure, {})[gateway] = values
        return table


def shown(values: Sequence[float], digits: int = 0) -> str:
    """The median and, if there are several values, the smallest and the largest."""
    if not values:
        return "–"
    if len(values) == 1:
        return f"{values[0]:,.{digits}f}"
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"
