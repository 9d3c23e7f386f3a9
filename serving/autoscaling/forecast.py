"""What will be asked of a model when a replica that is started now is ready. Pure: one figure in, the next state out.

Five experts each say what the rate will be one horizon ahead: *as now*; *as lately*, smoothed; *the trend goes on*, the short one
and the long one, both damped (Gardner and McKenzie, 1985); *as at this time of the day before*. When the time has come each is
judged, and they count by how right they were lately. So the forecast is hardly ever worse than the naive one, which is the first
expert, and better wherever there is something to know. How far it was off lately is the headroom that a cautious reader adds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

EXPERTS = ("as now", "as lately", "short trend", "long trend", "time of day")
_DAY_S, _BINS = 86_400.0, 288
_SHORT, _LONG = (10.0, 40.0, 200.0), (40.0, 300.0, 900.0)  # memories of level and slope, and how long a trend goes on
_ERROR_S = 86_400.0  # memory of how right the experts were: what matters is when they differ, which may be once a day
_OFF_S = 1800.0  # memory of how far off the forecast was
_DAY_MEMORY = 0.3  # of a new day's figure for the same five minutes
_SHARPNESS = 4.0  # how much more the better expert counts
_MOST_RATIO = 4.0  # from one time of the day to another
_PENDING = 256


@dataclass(frozen=True, slots=True)
class _Pending:
    """What the experts and all together said about a time that has not come."""

    due: float
    said: tuple[float, ...]
    together: float


@dataclass(frozen=True, slots=True)
class Trend:
    """Holt's method for figures at uneven times, damped. Memories in seconds."""

    level_s: float
    slope_s: float
    damped_s: float
    level: float = 0.0
    slope: float = 0.0
    spread: float = 0.0  # mean square of what the slope was off by

    def follow(self, value: float, passed: float) -> Trend:
        believes, follows = -math.expm1(-passed / self.level_s), -math.expm1(-passed / self.slope_s)
        expected = max(0.0, self.level + self.slope * passed)
        level = expected + believes * (value - expected)
        miss = (level - self.level) / passed - self.slope
        spread = self.spread + follows * (miss * miss * follows - self.spread)
        return replace(self, level=max(0.0, level), slope=self.slope + follows * miss, spread=spread)

    def ahead(self, horizon_s: float) -> float:
        """At least 0. A slope counts by how far it stands out from what it is off by."""
        shown = self.slope * self.slope
        believed = self.slope * shown / (shown + self.spread) if shown else 0.0
        return max(0.0, self.level + believed * self.damped_s * -math.expm1(-horizon_s / self.damped_s))


@dataclass(frozen=True, slots=True)
class Forecast:
    """`horizon_s`: how far ahead it is asked for. Begin with `Forecast(horizon_s)`, then `observe`."""

    horizon_s: float
    last: float = 0.0
    seen_at: float | None = None
    short: Trend = Trend(*_SHORT)
    long: Trend = Trend(*_LONG)
    wrong: tuple[float, ...] = (0.0,) * len(EXPERTS)  # their mean square errors
    off: float = 0.0  # that of the forecast, counted only where it was too low
    judged_from: float | None = None
    judged_at: float = 0.0
    day: tuple[float, ...] = (0.0,) * _BINS
    learned: tuple[bool, ...] = (False,) * _BINS
    now_bin: int = -1
    now_sum: float = 0.0
    now_s: float = 0.0
    pending: tuple[_Pending, ...] = field(default=())

    def observe(self, value: float, now: float) -> Forecast:
        """The rate as it is now. Times must not go back; the same time again changes nothing."""
        if self.seen_at is None:
            short, long = replace(self.short, level=value), replace(self.long, level=value)
            return self._told(replace(self, last=value, seen_at=now, short=short, long=long), now)
        passed = now - self.seen_at
        if passed <= 0.0:
            return self
        return self._told(self._judge(value, now)._learn_day(value, now, passed)._follow(value, now, passed), now)

    def ahead(self, now: float) -> float:
        """The rate one horizon from now, at least 0."""
        return self._together(self._experts(now))

    def at_most(self, now: float, spreads: float) -> float:
        """The same, and so many standard deviations of being too low more."""
        return self.ahead(now) + spreads * math.sqrt(self.off)

    def usual(self, now: float) -> float:
        """The rate of this time of the day one horizon ahead, as it was on days before; 0 where that is not known."""
        return self._usual(now + self.horizon_s) or 0.0

    def weights(self) -> tuple[float, ...]:
        """How much each of `EXPERTS` counts; together 1."""
        least = 1e-9 + 1e-4 * self.level * self.level
        counts = [(1.0 / (error + least)) ** _SHARPNESS for error in self.wrong]
        total = math.fsum(counts)
        return tuple(count / total for count in counts)

    def _together(self, said: tuple[float, ...]) -> float:
        if self.judged_from is None:
            return said[0]
        return math.fsum(weight * one for weight, one in zip(self.weights(), said, strict=True))

    def _experts(self, now: float) -> tuple[float, ...]:
        since = max(0.0, now - self.seen_at) if self.seen_at is not None else 0.0
        trends = [trend.ahead(self.horizon_s + since) for trend in (self.short, self.long)]
        return self.last, self.level, *trends, self.level * self._day_ratio(now)

    @property
    def level(self) -> float:
        """The rate lately."""
        return self.short.level

    def _day_ratio(self, now: float) -> float:
        was, will_be = self._usual(now), self._usual(now + self.horizon_s)
        if was is None or will_be is None:
            return 1.0
        if was <= 0.0:
            return _MOST_RATIO if will_be > 0.0 else 1.0
        return min(_MOST_RATIO, max(1.0 / _MOST_RATIO, will_be / was))

    def _usual(self, at: float) -> float | None:
        """The rate of days before at this time of the day, between the means of two bins; None: not known."""
        place = at % _DAY_S / _DAY_S * _BINS - 0.5
        before = math.floor(place)
        first, second = before % _BINS, (before + 1) % _BINS
        if not (self.learned[first] and self.learned[second]):
            return None
        return self.day[first] + (self.day[second] - self.day[first]) * (place - before)

    def _follow(self, value: float, now: float, passed: float) -> Forecast:
        short, long = self.short.follow(value, passed), self.long.follow(value, passed)
        return replace(self, last=value, seen_at=now, short=short, long=long)

    def _judge(self, value: float, now: float) -> Forecast:
        due = [one for one in self.pending if one.due <= now]
        if not due:
            return self
        last, rest = due[-1], self.pending[len(due) :]
        short = max(0.0, value - last.together)
        errors = tuple((said - value) ** 2 for said in last.said)
        if self.judged_from is None:
            return replace(self, wrong=errors, off=short * short, judged_from=now, judged_at=now, pending=rest)
        known_s = max(now - self.judged_from, self.horizon_s)
        passed = now - self.judged_at
        news, late = min(1.0, passed / min(_ERROR_S, known_s)), min(1.0, passed / min(_OFF_S, known_s))
        wrong = tuple(was + news * (error - was) for was, error in zip(self.wrong, errors, strict=True))
        off = self.off + late * (short * short - self.off)
        return replace(self, wrong=wrong, off=off, judged_at=now, pending=rest)

    def _learn_day(self, value: float, now: float, passed: float) -> Forecast:
        here = _bin(now)
        if here == self.now_bin:
            return replace(self, now_sum=self.now_sum + value * passed, now_s=self.now_s + passed)
        day, learned = self.day, self.learned
        if self.now_bin >= 0 and self.now_s > 0.0:
            mean, was = self.now_sum / self.now_s, self.now_bin
            known = day[was] + _DAY_MEMORY * (mean - day[was]) if learned[was] else mean
            day = (*day[:was], known, *day[was + 1 :])
            learned = (*learned[:was], True, *learned[was + 1 :])
        return replace(self, day=day, learned=learned, now_bin=here, now_sum=value * passed, now_s=passed)

    def _told(self, seen: Forecast, now: float) -> Forecast:
        """Note down what is said now, about once in a 64th of the horizon."""
        due = now + seen.horizon_s
        if seen.pending and due < seen.pending[-1].due + max(1.0, seen.horizon_s / 64.0):
            return seen
        said = seen._experts(now)
        return replace(seen, pending=(*seen.pending[-_PENDING:], _Pending(due, said, seen._together(said))))


def _bin(at: float) -> int:
    return int(at % _DAY_S / _DAY_S * _BINS) % _BINS
