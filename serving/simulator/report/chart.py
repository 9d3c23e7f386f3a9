"""Plots as SVG, written by hand: lines and steps over time, areas on top of each other. No library, no script. Pure.

Colours are classes of the page's style sheet, so that a plot is as readable in the dark; dashes tell lines apart without them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import groupby

from serving.simulator.report.wording import clock, number, seconds

_WIDTH, _HEIGHT = 720, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 10, 26
_TIME_STEPS_S = (60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
_MOST_TICKS = 9
_NOTHING = 1e-9


@dataclass(frozen=True, slots=True)
class Line:
    """`values`: one a window; nan: nothing to be shown. `colour`: 1 to 4. is_area: filled, on top of the areas before it."""

    name: str
    values: Sequence[float]
    colour: int
    is_dashed: bool = False
    is_area: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """title      what it shows, also to those who cannot see it
    limits     levels that are marked
    is_log     for times, in seconds
    is_whole   counts of things, of which there are no parts
    """

    title: str
    window_s: float
    lines: Sequence[Line]
    limits: Sequence[float] = ()
    is_log: bool = False
    is_whole: bool = False


def svg(chart: Chart) -> str:
    """One `<svg>` element."""
    bands = list(_stacked(chart.lines))
    lines = [line for line in chart.lines if not line.is_area]
    axis = _Axis.of(chart, [value for each in (*lines, *(band.top for band in bands)) for value in each.values])
    length = max((len(line.values) for line in chart.lines), default=1)
    parts = [*_grid(axis), *_times(length, chart.window_s)]
    parts += [_area(band, axis, length) for band in bands]
    parts += [path for line in lines for path in _paths(line, axis, length)]
    parts += [_limit(axis.y(limit), seconds(limit)) for limit in chart.limits]
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(chart.title)}" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{escape(chart.title)}</title>{"".join(parts)}</svg>'
    )


@dataclass(frozen=True, slots=True)
class _Axis:
    """From figures to heights. `ticks`: figures at which there is a line, with what is written there."""

    low: float
    high: float
    is_log: bool
    ticks: Sequence[tuple[float, str]]

    @classmethod
    def of(cls, chart: Chart, values: Sequence[float]) -> _Axis:
        known = [value for value in values if math.isfinite(value)]
        if chart.is_log:
            return cls._of_times([*known, *chart.limits])
        return cls._of_numbers(max((*known, *chart.limits), default=0.0), 1.0 if chart.is_whole else 0.0)

    @classmethod
    def _of_numbers(cls, most: float, least_step: float) -> _Axis:
        step = max(least_step, _round_step(most / 4.0) if most > _NOTHING else 0.25)
        steps = max(1, math.ceil(most / step - 1e-9))
        return cls(0.0, steps * step, False, [(step * at, number(step * at)) for at in range(steps + 1)])

    @classmethod
    def _of_times(cls, values: Sequence[float]) -> _Axis:
        """Whole powers of ten, at least two of them. What takes less than a millisecond lies at the bottom."""
        positive = [max(value, 1e-3) for value in values if value > 0]
        first = math.floor(math.log10(min(positive, default=0.1)) + 1e-9)
        last = max(math.ceil(math.log10(max(positive, default=1.0)) - 1e-9), first + 1)
        return cls(10.0**first, 10.0**last, True, [(10.0**power, _power(power)) for power in range(first, last + 1)])

    def y(self, value: float) -> float:
        if self.is_log:
            part = math.log10(max(value, self.low) / self.low) / math.log10(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return _HEIGHT - _BOTTOM - part * (_HEIGHT - _TOP - _BOTTOM)


@dataclass(frozen=True, slots=True)
class _Band:
    top: Line
    bottom: Sequence[float]


def _stacked(lines: Sequence[Line]) -> Iterator[_Band]:
    """The areas, each between the sum of those before it and that with its own."""
    bottom: Sequence[float] = ()
    for line in lines:
        if line.is_area:
            bottom = bottom or [0.0] * len(line.values)
            top = [value + under for value, under in zip(line.values, bottom, strict=True)]
            yield _Band(replace(line, values=top), bottom)
            bottom = top


def _x(index: float, length: int) -> float:
    return _LEFT + index / max(1, length) * (_WIDTH - _LEFT - _RIGHT)


def _grid(axis: _Axis) -> Iterator[str]:
    for value, text in axis.ticks:
        y = axis.y(value)
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="tick" x="{_LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{escape(text)}</text>'


def _times(length: int, window_s: float) -> Iterator[str]:
    whole_s = length * window_s
    step = next((step for step in _TIME_STEPS_S if whole_s / step <= _MOST_TICKS), 0)
    step = step or math.ceil(whole_s / _MOST_TICKS / 86_400) * 86_400
    for index in range(int(whole_s // step) + 1):
        x = _x(index * step / window_s, length)
        anchor = "end" if x > _WIDTH - _RIGHT - 16 else "middle"
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_HEIGHT - _BOTTOM}" y2="{_HEIGHT - _BOTTOM + 4}"/>'
        yield f'<text class="tick" x="{x:.1f}" y="{_HEIGHT - 8}" text-anchor="{anchor}">{clock(index * step)}</text>'


def _steps(values: Sequence[tuple[int, float]], axis: _Axis, length: int) -> str:
    """A value holds for its whole window."""
    return " ".join(
        f"{_x(at, length):.1f},{axis.y(value):.1f} {_x(at + 1, length):.1f},{axis.y(value):.1f}" for at, value in values
    )


def _area(band: _Band, axis: _Axis, length: int) -> str:
    there = _steps(list(enumerate(band.top.values)), axis, length)
    back = " ".join(reversed(_steps(list(enumerate(band.bottom)), axis, length).split()))
    return f'<polygon class="a{band.top.colour}" points="{there} {back}"/>'


def _paths(line: Line, axis: _Axis, length: int) -> Iterator[str]:
    """One for each run of windows without a gap."""
    dashed = " dashed" if line.is_dashed else ""
    for is_known, run in groupby(enumerate(line.values), key=lambda pair: math.isfinite(pair[1])):
        if is_known:
            yield f'<polyline class="l{line.colour}{dashed}" points="{_steps(list(run), axis, length)}"/>'


def _limit(y: float, text: str) -> str:
    return (
        f'<line class="limit" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="limit" x="{_WIDTH - _RIGHT - 2}" y="{y - 4:.1f}" text-anchor="end">{escape(text)}</text>'
    )


def _power(power: int) -> str:
    """Seconds, as a power of ten is read."""
    return f"{10**power:,} s" if power >= 0 else f"{10 ** (power + 3)} ms"


def _round_step(least: float) -> float:
    """1, 2 or 5 times a power of ten, at least so much."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(times * power for times in (1, 2, 5, 10) if times * power >= least * (1 - 1e-9))
