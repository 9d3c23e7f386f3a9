"""Windows of fixed length, in which limits hold: which one runs, and for how long still. All times are whole milliseconds.

Minutes turn at a phase of their scope's own, so that not all tenants' windows turn at one moment; days and months turn with the
calendar of one zone, which is an offset from UTC. `lua/exchange.lua` has the same arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from zlib import crc32

MINUTE_MS = 60_000
DAY_MS = 86_400_000
ENDLESS = 1  # the one window of what has none


class Period(Enum):
    MINUTE = "minute"
    DAY = "day"
    MONTH = "month"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Calendar:
    """The zone, and where in the minute a scope's windows turn."""

    offset_ms: int = 9 * 3_600_000
    phase_ms: int = 0


def phase_of(scope_id: str) -> int:
    """Always the same for one scope, spread over the minute for many."""
    return crc32(scope_id.encode()) % MINUTE_MS


def window_at(period: Period, now_ms: int, calendar: Calendar) -> tuple[int, int]:
    """The number of the window that runs, which grows by one from each to the next, and the milliseconds that it still does."""
    if period is Period.NONE:
        return ENDLESS, DAY_MS
    if period is Period.MINUTE:
        since = now_ms + calendar.phase_ms
        return since // MINUTE_MS, MINUTE_MS - since % MINUTE_MS
    local = now_ms + calendar.offset_ms
    day = local // DAY_MS
    if period is Period.DAY:
        return day, DAY_MS - local % DAY_MS
    month = month_of(day)
    return month, first_day_of(month + 1) * DAY_MS - local


def month_of(day: int) -> int:
    """Months since the year 0 of the Gregorian calendar, from days since 1970 (after Hinnant's days_from_civil)."""
    shifted = day + 719_468
    era = shifted // 146_097
    of_era = shifted - era * 146_097
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    from_march = (5 * of_year + 2) // 153
    return (year + era * 400) * 12 + from_march + 2


def first_day_of(month: int) -> int:
    """Days since 1970 of a month's first day."""
    from_march = month - 2
    year = from_march // 12
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (from_march - year * 12) + 2) // 5
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
