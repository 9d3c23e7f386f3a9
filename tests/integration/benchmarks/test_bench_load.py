"""The load generators against the scripted engine, over real sockets and for a moment only."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from benchmarks.gateway.load import churn, crowd, rate, streams
from benchmarks.gateway.processes import free_port
from benchmarks.gateway.upstream import serve


@pytest.fixture
async def port() -> AsyncIterator[int]:
    port = free_port()
    serving = asyncio.create_task(serve(port))
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)
            continue
        break
    writer.close()
    yield port
    await asyncio.sleep(0.05)  # for the engine to notice that its clients have gone
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def test_streams_are_replaced_and_counted(port: int) -> None:
    plan = streams.StreamsPlan(port, "none", streams=5, chunks=4, every_ms=5, warm_s=0.1, seconds=0.5, watch=os.getpid())
    report = await streams.run(plan)
    assert report.failed == 0
    assert 30 < report.completed <= 125
    assert report.processor_s is not None


async def test_calls_at_a_fixed_rate(port: int) -> None:
    report = await rate.run(rate.RatePlan(port, "none", per_s=200, seconds=0.5))
    assert report.failed == 0
    assert 60 < report.calls < 140
    assert 0 < report.p50_ms <= report.p99_ms


async def test_nobody_there_is_a_failure_and_no_end() -> None:
    report = await rate.run(rate.RatePlan(free_port(), "none", per_s=100, seconds=0.2))
    assert report.failed == report.calls > 0


async def test_crowd_is_open_at_once_and_ends_in_order(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "_PATIENCE_S", 0.5)
    monkeypatch.setattr(crowd, "_WARM_CALLS_S", 0.1)
    plan = crowd.CrowdPlan(port, "none", streams=40, per_s=400, every_ms=50, hold_s=0.3, calls_per_s=50, watch=os.getpid())
    report = await crowd.run(plan)
    assert (report.open, report.failed, report.first_failure) == (40, 0, "")
    assert report.calls.failed == 0


async def test_streams_are_left_in_the_middle(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(churn, "_SETTLE_S", 0.0)
    plan = churn.ChurnPlan(port, "none", warm_calls=10, warm_aborts=5, calls=300, aborts=130, legs=2, watch=os.getpid())
    report = await churn.run(plan)
    assert (report.calls, report.aborted, report.failed) == (300, 130, 0)
    assert len(report.memory_bytes) == 3
