"""Results of runs that never were, for tests of what is made of results."""

from __future__ import annotations

import math
from collections.abc import Iterable
from random import Random
from typing import NamedTuple

from serving.simulator.result import Calls, End, ModelSeries, Result

_COUNTS = ("waiting", "running", "ready", "starting", "draining", "wanted", "refused")
_SUMS = ("came", "turned_away", "evicted", "over_limit", "failed", "served")


class Row(NamedTuple):
    """One call. `wait_s`: to its first token, from when it came; `again_s`: after which it came the last time."""

    came: float
    wait_s: float = math.nan
    target_s: float = 2.0
    end: End = End.SERVED
    again_s: float = 0.0
    model: int = 0
    tenant: int = 0
    tokens: int = 100
    turned: int = 0


def made_result(rows: Iterable[Row], models: tuple[str, ...] = ("solar",), duration_s: float = 600.0) -> Result:
    """With these calls, and a moment every 10 s at which nothing is."""
    result = Result("made up", 7, duration_s, models, ["cafe", "school"], ["paid", "batch"])
    for row in rows:
        add_call(result.calls, row)
    for step in range(int(duration_s / 10) + 1):
        result.at.append(step * 10.0)
    result.series = {model: ModelSeries() for model in models}
    for series in result.series.values():
        for name in (*_COUNTS, *_SUMS, "tokens", "gpu_s"):
            getattr(series, name).extend([0] * len(result.at))
    return result


def add_call(calls: Calls, row: Row) -> None:
    first = row.came + row.wait_s
    for name, value in {
        "came": row.came,
        "last_came": row.came + row.again_s,
        "started": first,
        "first": first,
        "ended": first + 1.0,
        "target_s": row.target_s,
        "told_s": math.nan,
    }.items():
        getattr(calls, name).append(value)
    for name, count in {
        "model": row.model,
        "tenant": row.tenant,
        "prompt_tokens": row.tokens - row.tokens // 4,
        "output_tokens": row.tokens // 4,
        "turned": row.turned,
        "resumed": 0,
        "end": int(row.end),
    }.items():
        getattr(calls, name).append(count)


def busy_result(seed: int, models: tuple[str, ...] = ("solar", "kanana"), calls: int = 2000) -> Result:
    """Some hour with everything in it."""
    random = Random(seed)  # noqa: S311 - a test
    rows = sorted(_row(random, len(models)) for _ in range(calls))
    result = made_result(rows, models, 3600.0)
    for series in result.series.values():
        for name in _COUNTS:
            getattr(series, name)[:] = getattr(series, name)[:0]
            getattr(series, name).extend(random.randint(0, 40) for _ in result.at)
        for name in (*_SUMS, "tokens", "gpu_s"):
            column, value = getattr(series, name), 0
            for index in range(len(column)):
                value += random.randint(0, 30)
                column[index] = value
    return result


def _row(random: Random, models: int) -> Row:
    end = random.choices(list(End), [1, 20, 3, 1])[0]
    came, model, tenant = random.uniform(0, 3600), random.randrange(models), random.randrange(2)
    if end is End.SERVED:
        return Row(came, random.lognormvariate(0, 1), 2.0, end, model=model, tenant=tenant)
    return Row(came, end=end, target_s=random.choice((2.0, math.inf)), model=model, tenant=tenant, turned=random.randint(0, 3))
