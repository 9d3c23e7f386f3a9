"""wrk, the closed-loop load generator: as many calls as so many connections can make one after the other."""

from __future__ import annotations

from pathlib import Path

import msgspec

from benchmarks.gateway import request
from benchmarks.gateway.peers import Gateway
from benchmarks.gateway.processes import LOAD_CORE, answer_of

_SCRIPT = Path(__file__).with_name("chat.lua")


class Report(msgspec.Struct, frozen=True):
    """One run of wrk."""

    calls: int
    seconds: float
    failed: int
    p50_ms: float
    p99_ms: float

    @property
    def good_per_s(self) -> float:
        """Calls that succeeded: a gateway that refuses is not fast."""
        return (self.calls - self.failed) / self.seconds


def run(gateway: Gateway, *, connections: int, seconds: float) -> Report:
    """Raises BenchmarkError if wrk itself fails."""
    load = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s", "--latency"]
    command = ["wrk", *load, "-s", str(_SCRIPT), gateway.url, "--", gateway.key, request.short_call().decode()]
    said = answer_of(command, core=LOAD_CORE, timeout_s=seconds + 30)
    return msgspec.json.decode(said.splitlines()[-1], type=Report)
