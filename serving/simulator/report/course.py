"""What a run was like from window to window: what the plots show. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serving.simulator.report.summary import percentile
from serving.simulator.result import ModelSeries, Result

_WINDOWS_S = (1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0)
_MOST_WINDOWS = 300
_HOUR_S, _DAY_S = 3600.0, 86_400.0


@dataclass(frozen=True, slots=True)
class Course:
    """One figure a window, of one model or of all together.

    window_s                       width; window n ends at (n + 1) * window_s
    waiting                        the most calls in the waiting room
    ready, starting, draining      replicas at the end
    wanted                         replicas that the autoscaler asks for, at the end
    first_token_p50_s, p99         of calls that came in it and were served, from when they came the last time; nan: none
    gpu_hours                      held from the beginning to its end
    refusals, failures             in it: calls turned away, those that come again included; calls that were lost
    targets_s                      the times by which first tokens had to be there, the commonest first
    """

    window_s: float
    waiting: tuple[int, ...]
    ready: tuple[int, ...]
    starting: tuple[int, ...]
    draining: tuple[int, ...]
    wanted: tuple[int, ...]
    first_token_p50_s: tuple[float, ...]
    first_token_p99_s: tuple[float, ...]
    gpu_hours: tuple[float, ...]
    refusals: tuple[int, ...]
    failures: tuple[int, ...]
    targets_s: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.waiting)


def course(result: Result, model: str | None = None, window_s: float | None = None) -> Course:
    """`window_s`: None for one of which there are at most 300."""
    width = window_s or _width(result.duration_s)
    number = max(1, math.ceil(result.duration_s / width - 1e-9))
    series = [result.series[name] for name in ([model] if model is not None else result.models) if name in result.series]
    edges = [bisect_left(result.at, index * width + 1e-9) for index in range(1, number)]
    edges.append(len(result.at))

    def at_end(column: Callable[[ModelSeries], Sequence[float]]) -> list[float]:
        columns = [column(one) for one in series]
        return [math.fsum(values[edge - 1] for values in columns) if edge else 0.0 for edge in edges]

    def within(column: Callable[[ModelSeries], Sequence[float]]) -> tuple[int, ...]:
        until = at_end(column)
        return tuple(round(now - before) for before, now in zip([0.0, *until], until, strict=False))

    def whole(column: Callable[[ModelSeries], Sequence[float]]) -> tuple[int, ...]:
        return tuple(round(value) for value in at_end(column))

    firsts, targets = _calls(result, model, width, number)
    return Course(
        window_s=width,
        waiting=_most(series, edges),
        ready=whole(lambda one: one.ready),
        starting=whole(lambda one: one.starting),
        draining=whole(lambda one: one.draining),
        wanted=whole(lambda one: one.wanted),
        first_token_p50_s=tuple(percentile(values, 0.5) for values in firsts),
        first_token_p99_s=tuple(percentile(values, 0.99) for values in firsts),
        gpu_hours=tuple(value / _HOUR_S for value in at_end(lambda one: one.gpu_s)),
        refusals=tuple(
            map(sum, zip(within(lambda one: one.turned_away), within(lambda one: one.over_limit), strict=True)),
        ),
        failures=within(lambda one: one.failed),
        targets_s=targets,
    )


def _width(duration_s: float) -> float:
    fitting = (width for width in _WINDOWS_S if duration_s / width <= _MOST_WINDOWS)
    return next(fitting, math.ceil(duration_s / _MOST_WINDOWS / _DAY_S) * _DAY_S)


def _most(series: Sequence[ModelSeries], edges: Sequence[int]) -> tuple[int, ...]:
    together = [sum(values) for values in zip(*(one.waiting for one in series), strict=True)]
    most, before = [], 0
    for edge in edges:
        last = together[before - 1] if before and together else 0
        most.append(max(together[before:edge], default=last))
        before = edge
    return tuple(most)


def _calls(result: Result, model: str | None, width: float, number: int) -> tuple[list[list[float]], tuple[float, ...]]:
    calls = result.calls
    firsts: list[list[float]] = [[] for _ in range(number)]
    targets: dict[float, int] = {}
    for row in result.rows(model):
        target_s, first_s = calls.target_s[row], calls.first_token_s(row)
        if target_s < math.inf:
            targets[target_s] = targets.get(target_s, 0) + 1
        if first_s == first_s:
            firsts[min(number - 1, int(calls.came[row] / width))].append(first_s)
    return [sorted(values) for values in firsts], tuple(sorted(targets, key=lambda target_s: -targets[target_s]))
