"""wrk, the closed-loop load generator: as many calls as so many connections can make one after the other."""

from __future__ import annotations

from pathlib import Path

import msgspec

from benchmarks.gateway import request
from benchmarks.gateway.peers import Gateway
from benchmarks.gateway.processes import LOAD_CORE, BenchmarkError, answer_of

_SCRIPT = Path(__file__).with_name("chat.lua")


class Report(msgspec.Struct, frozen=True):
    """One run of wrk."""

    calls: int
    seconds: float
    failed: int
    p50_ms: float
    p99_ms: float

    @property
    def calls_per_s(self) -> float:
        return self.calls / self.seconds


def run(gateway: Gateway, *, connections: int, seconds: float) -> Report:
    """Raises BenchmarkError if a call fails: a gateway that refuses is not fast."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "10s", "--latency", "-s", str(_SCRIPT), gateway.url]
    said = answer_of([*command, "--", gateway.key, request.short_call().decode()], core=LOAD_CORE, timeout_s=seconds + 30)
    report = msgspec.json.decode(said.splitlines()[-1], type=Report)
    if report.failed or not report.calls:
        raise BenchmarkError(f"{gateway.name}: {report.failed} of {report.calls} calls failed")
    return report
