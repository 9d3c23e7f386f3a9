"""What was to be reached, and whether it was. Pure: figures in, verdicts out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.table import table


@dataclass(frozen=True, slots=True)
class Verdict:
    """`aim` carries its own sign: `>=1`."""

    name: str
    holds: bool
    value: str
    aim: str

    def line(self) -> str:
        return f"{'HOLDS' if self.holds else 'SHORT'} {self.name} {self.value} {self.aim}"


def at_least(name: str, value: float, least: float) -> Verdict:
    """What is not a number is neither at least nor at most anything."""
    return Verdict(name, value >= least, _shown(value), f">={least:g}")


def at_most(name: str, value: float, most: float) -> Verdict:
    return Verdict(name, value <= most, _shown(value), f"<={most:g}")


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    return table(["", "aim", "reached"], [["holds" if v.holds else "**short**", f"{v.name} {v.aim}", v.value] for v in verdicts])


def _shown(value: float) -> str:
    return f"{value:.4g}" if value < 1000 else f"{value:.0f}"
