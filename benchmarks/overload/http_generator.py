"""Runs the load generator in a process of its own, on the load's core, and hands back its report."""

from __future__ import annotations

import sys
from typing import TypeVar

import msgspec

from benchmarks.gateway.processes import LOAD_CORE, BenchmarkError, answer_of
from benchmarks.overload.http_plan import ClosedPlan, ClosedReport, LoadPlan, LoadReport

_GRACE_S = 60.0
_Report = TypeVar("_Report", LoadReport, ClosedReport)


def open_loop(plan: LoadPlan) -> LoadReport:
    """Raises BenchmarkError."""
    return _run(plan, LoadReport, plan.warm_s + plan.seconds + plan.tail_s)


def closed_loop(load: LoadPlan, clients: int, seconds: float) -> ClosedReport:
    """Raises BenchmarkError."""
    return _run(ClosedPlan(msgspec.structs.replace(load, seconds=seconds), clients), ClosedReport, seconds)


def _run(plan: LoadPlan | ClosedPlan, report: type[_Report], seconds: float) -> _Report:
    command = [sys.executable, "-m", "benchmarks.overload.http_load", msgspec.json.encode(plan).decode()]
    said = answer_of(command, core=LOAD_CORE, timeout_s=seconds + _GRACE_S)
    try:
        return msgspec.json.decode(said, type=report)
    except msgspec.DecodeError as problem:
        raise BenchmarkError(f"the generator's report of {len(said)} characters cannot be read: {problem}") from problem
