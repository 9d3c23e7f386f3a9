"""What the allocator must reach on the national fleet, and whether it has. Pure: figures in, verdicts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.aims import Verdict

_BOUNDS = (  # what is measured, its bound; the worst of the rounds counts
    ("seconds_from_nothing", 1.0),
    ("seconds_nothing_new", 1.0),
    ("seconds_reservations_begin", 1.0),
    ("seconds_after_the_drain", 1.0),
    ("seconds_nodes_leave", 1.0),
    ("moved_when_nothing_is_new", 0),
    ("gpus_over_committed", 0),
    ("reserved_gpus_idle_though_wanted", 0),
    ("seconds_until_reserved_gpus_are_back", 60.0),
)


@dataclass(frozen=True, slots=True)
class Round:
    """One fleet's figures, by name."""

    seed: int
    figures: Mapping[str, float]


def verdicts(rounds: Sequence[Round]) -> list[Verdict]:
    """One for each aim for which there are figures."""
    judged: list[Verdict] = []
    for name, bound in _BOUNDS:
        values = [each.figures[name] for each in rounds if name in each.figures]
        if values:
            judged.append(Verdict(name, max(values) <= bound, f"{max(values):.3g}", f"<={bound:g}"))
    return judged
