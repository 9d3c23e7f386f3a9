"""A run as JSON, for programs: keys keep their meaning. What cannot be said (a percentile of no calls) is null. Pure.

format                "daemun-simulation/1"; the number grows if a key changes its meaning or goes
scenario, seed, duration_s, fingerprint      the last is the same for two runs whose every figure is the same
total, models.NAME    calls: the fields of `CallFigures`, percentiles as {p50, p90, p99}; fleet: those of `FleetFigures`
tiers.NAME            the fields of `CallFigures`
course.NAME           the fields of `Course`, one figure a window
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from serving.simulator.report.course import course
from serving.simulator.report.summary import CallFigures, ModelFigures, Summary, summary
from serving.simulator.result import Result

FORMAT = "daemun-simulation/1"
_PERCENTILES = ("p50", "p90", "p99")
_DECIMALS = 6


def document(result: Result, figures: Summary | None = None) -> str:
    """One line of JSON; the same run gives the same text."""
    figures = figures or summary(result)
    told = {
        "format": FORMAT,
        "scenario": figures.scenario,
        "seed": figures.seed,
        "duration_s": figures.duration_s,
        "fingerprint": result.fingerprint(),
        "total": _model(figures.total),
        "models": {each.model: _model(each) for each in figures.models},
        "tiers": {tier: _calls(calls) for tier, calls in figures.tiers},
        "course": {model: asdict(course(result, model)) for model in result.models},
    }
    return json.dumps(_plain(told), ensure_ascii=False, allow_nan=False)


def _model(figures: ModelFigures) -> dict[str, Any]:
    return {"calls": _calls(figures.calls), "fleet": asdict(figures.fleet)}


def _calls(figures: CallFigures) -> dict[str, Any]:
    told = asdict(figures)
    for key in ("first_token_s", "wait_s"):
        told[key] = dict(zip(_PERCENTILES, told[key], strict=True))
    return told


def _plain(value: Any) -> Any:
    """Without what JSON does not know, and without digits that mean nothing."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return round(value, _DECIMALS) if math.isfinite(value) else None
    return value
