"""The overload's generator against the simulated engine: what is asked comes, and what is left is left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.overload import http_load
from benchmarks.overload.http_figures import of_run
from benchmarks.overload.http_plan import ClosedPlan, LoadPlan, TierLoad
from tests.e2e.stack import free_ports, until
from tests.engine_process import MODEL, EngineProcess, engine_process


@pytest.fixture
def engine() -> Iterator[EngineProcess]:
    with engine_process(free_ports(1)[0], "--scale", "4", "--max-num-seqs", "4") as made:
        yield made


def plan(engine: EngineProcess, per_s: float) -> LoadPlan:
    tiers = [TierLoad("paid", 0.5, 2.0, None, ["a"]), TierLoad("free", 0.5, 4.0, 2.0, ["b"])]
    port = int(engine.url.rpartition(":")[2])
    return LoadPlan([port], "/v1/chat/completions", MODEL, tiers, True, False, per_s, 0.2, 1.0, 0.3, 1)


async def test_calls_are_sent_when_they_are_due_and_their_tokens_are_counted(engine: EngineProcess) -> None:
    report = await http_load.OpenLoop(plan(engine, per_s=20)).run()
    figures = of_run(plan(engine, per_s=20), report.calls)
    assert 5 < figures.asked < 40
    assert (figures.failed, figures.refused) == (0, 0)
    assert figures.tokens_per_s > 0
    whole = [call for call in report.calls if call.ended_s is not None]
    assert len(whole) > 5
    assert all(call.first_s is not None and 0 < call.first_s <= call.ended_s for call in whole if call.ended_s is not None)


async def test_load_goes_on_when_answers_do_not_keep_up_and_ends_all_the_same(engine: EngineProcess) -> None:
    report = await http_load.OpenLoop(plan(engine, per_s=400)).run()
    assert 500 < len(report.calls) < 700
    figures = of_run(plan(engine, per_s=400), report.calls)
    assert figures.unfinished > 100
    assert figures.failed == 0
    until(lambda: engine.state()["running"] == engine.state()["waiting"] == 0, 5, "the engine is free again")
    assert engine.state()["aborted"] > 100


async def test_closed_loop_says_what_the_engine_can_do(engine: EngineProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_load, "_RAMP_S", 0.2)
    report = await http_load.closed_loop(ClosedPlan(plan(engine, per_s=1), clients=8))
    assert report.failed == 0
    assert report.calls > 5
    assert 8 <= report.tokens / report.calls <= 24


async def test_nobody_there_is_a_failure_and_no_end() -> None:
    tiers = [TierLoad("paid", 1.0, 2.0, None, ["a"])]
    nowhere = LoadPlan(free_ports(1), "/", MODEL, tiers, True, False, 50.0, 0.0, 0.5, 0.0, 1)
    report = await http_load.OpenLoop(nowhere).run()
    assert of_run(nowhere, report.calls).failed == len(report.calls) > 0
