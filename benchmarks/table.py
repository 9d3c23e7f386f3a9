"""Tables in Markdown that are also readable as they are. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from unicodedata import east_asian_width


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, the others to the right."""
    widths = [max(3, *(_width(cell) for cell in cells)) for cells in zip(columns, *rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join("| " + " | ".join(map(_pad, line, widths, range(len(widths)))) + " |" for line in (columns, rule, *rows))


def _pad(cell: str, width: int, column: int) -> str:
    fill = " " * (width - _width(cell))
    return cell + fill if column == 0 else fill + cell


def _width(text: str) -> int:
    return sum(2 if east_asian_width(sign) in "WF" else 1 for sign in text)
