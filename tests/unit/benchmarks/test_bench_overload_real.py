"""What the real engine's pages say."""

from __future__ import annotations

import pytest

from benchmarks.overload import http_real
from benchmarks.overload.http_real import RealEngine

PAGE = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="daemun-demo"} %s
vllm:num_requests_waiting{engine="0",model_name="daemun-demo"} %s
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 7.0
"""


@pytest.mark.parametrize(("running", "waiting", "idle"), [("0.0", "0.0", True), ("1.0", "0.0", False), ("0.0", "3.0", False)])
def test_engine_is_idle_when_nothing_runs_or_waits(
    running: str, waiting: str, idle: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def page(port: int, method: str, path: str) -> tuple[int, bytes]:
        asked.append(path)
        return 200, (PAGE % (running, waiting)).encode()

    monkeypatch.setattr(http_real, "exchange", page)
    assert RealEngine(1, "/daemun-demo").are_idle() is idle
    assert asked == ["/daemun-demo/metrics"]
