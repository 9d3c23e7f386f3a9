"""Windows turn where they should: on the calendar of their zone, and minutes where their scope's phase is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.window import DAY_MS, MINUTE_MS, Calendar, Period, phase_of, window_at

SEOUL = timezone(timedelta(hours=9))
times = st.datetimes(datetime(1999, 1, 1), datetime(2120, 1, 1)).map(
    lambda time: int(time.replace(tzinfo=UTC).timestamp() * 1000)
)


@given(times)
def test_days_and_months_turn_with_the_calendar_of_the_zone(now_ms: int) -> None:
    here = datetime.fromtimestamp(now_ms / 1000, SEOUL)
    day, day_left = window_at(Period.DAY, now_ms, Calendar())
    assert day == (here.date() - datetime(1970, 1, 1).date()).days
    assert 0 < day_left <= DAY_MS
    assert window_at(Period.DAY, now_ms + day_left, Calendar())[0] == day + 1
    month, month_left = window_at(Period.MONTH, now_ms, Calendar())
    assert month == here.year * 12 + here.month - 1
    turn = datetime.fromtimestamp((now_ms + month_left) / 1000, SEOUL)
    assert (turn.day, turn.hour, turn.minute, turn.second) == (1, 0, 0, 0)
    assert window_at(Period.MONTH, now_ms + month_left - 1, Calendar())[0] == month


@given(times, st.text(max_size=20))
def test_minutes_turn_at_their_scopes_own_phase(now_ms: int, scope_id: str) -> None:
    calendar = Calendar(phase_ms=phase_of(scope_id))
    window, left_ms = window_at(Period.MINUTE, now_ms, calendar)
    assert 0 < left_ms <= MINUTE_MS
    assert window_at(Period.MINUTE, now_ms + left_ms - 1, calendar)[0] == window
    assert window_at(Period.MINUTE, now_ms + left_ms, calendar) == (window + 1, MINUTE_MS)


def test_phases_are_spread() -> None:
    seconds = {phase_of(f"tenant:{number}") // 1000 for number in range(1000)}
    assert len(seconds) > 55


@pytest.mark.parametrize("period", list(Period))
def test_what_has_no_window_never_turns(period: Period) -> None:
    windows = {window_at(period, now, Calendar())[0] for now in (0, 10**12, 10**13)}
    assert (len(windows) == 1) == (period is Period.NONE)
