"""Figures as people read them, alike in the terminal and on the page. Pure."""

from __future__ import annotations

import math


def seconds(value: float) -> str:
    """`850 ms`, `12.3 s`, `4 min`, `2.5 h`; a dash for what is not known."""
    if not math.isfinite(value):
        return "–"
    if value < 0.9995:
        return f"{value * 1e3:.0f} ms"
    if value < 99.95:
        return f"{value:.3g} s"
    return f"{value / 60:.3g} min" if value < 5970 else f"{value / 3600:.3g} h"


def number(value: float) -> str:
    """With thousands apart; parts only where there are few."""
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def share(part: float, whole: float) -> str:
    """In percent, never rounded up to all or down to none."""
    if whole <= 0:
        return "–"
    percent = 100.0 * part / whole
    if 99.95 <= percent < 100.0:
        return ">99.9 %"
    if 0.0 < percent < 0.05:
        return "<0.1 %"
    return f"{percent:.1f} %" if 0.0 < percent < 100.0 else f"{percent:.0f} %"


def clock(at: float) -> str:
    """Hours and minutes since the beginning, with days where there are any: `0:05`, `13:30`, `2 d 4:00`."""
    minutes = round(at / 60)
    days, rest = divmod(minutes, 1440)
    return f"{f'{days} d ' if days else ''}{rest // 60}:{rest % 60:02}"
