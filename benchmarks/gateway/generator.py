"""Runs a load generator in a process of its own, on the load's core, and hands back its report."""

from __future__ import annotations

import sys
from typing import TypeVar

import msgspec

from benchmarks.gateway.processes import LOAD_CORE, answer_of

Report = TypeVar("Report", bound=msgspec.Struct)


def run(plan: msgspec.Struct, report: type[Report], *, timeout_s: float) -> Report:
    """Raises BenchmarkError if the generator fails or takes longer."""
    command = [sys.executable, "-m", "benchmarks.gateway.load", msgspec.json.encode(plan).decode()]
    return msgspec.json.decode(answer_of(command, core=LOAD_CORE, timeout_s=timeout_s), type=report)
