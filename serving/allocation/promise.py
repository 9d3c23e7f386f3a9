"""Who was promised a place has it as soon as enough has drained there, and at the latest when it was told."""

from __future__ import annotations

from serving.allocation.books import Books
from serving.allocation.fleet import WHOLE
from serving.allocation.ground import DRAINING, Live
from serving.allocation.replica import Phase


def keep_promises(books: Books) -> None:
    """A promise once made is never put off: those that are made later take no room that an earlier one waits for."""
    promised = [live for live in books.lives.values() if live.phase is Phase.PROMISED]
    for live in promised:
        if live.until is None or live.until <= books.now:
            live.until = max(_free_at(books, cell) for cell in live.cells)
    for live in sorted(promised, key=lambda live: (live.until or 0.0, live.id)):
        if all(_load(books, live, cell) <= WHOLE for cell in live.cells):
            live.phase, live.until = Phase.RUNNING, None


def _free_at(books: Books, cell: int) -> float:
    """When enough has drained for everybody who will then be on the GPU."""
    on = books.ground.on[cell]
    excess, free_at = sum([other.shape.hundredths for other in on]) - WHOLE, books.now
    if excess > 0:
        for other in sorted((other for other in on if other.rank == DRAINING), key=lambda other: (other.until or 0.0, other.id)):
            if excess > 0:
                excess, free_at = excess - other.shape.hundredths, other.until or 0.0
    return free_at


def _load(books: Books, live: Live, cell: int) -> int:
    """What is on the GPU now, and what was promised it no later than this one."""
    until = live.until or 0.0
    return sum(
        [
            other.shape.hundredths
            for other in books.ground.on[cell]
            if other.phase is not Phase.PROMISED or other is live or (other.until or 0.0) <= until
        ]
    )
