"""A whole run: nothing is lost, nothing is over-committed, and the same comes out each time."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.limits import Tier
from serving.simulator.autoscaler import Signal, Subject
from serving.simulator.result import End, Result
from serving.simulator.run import Run, simulate
from serving.simulator.scenario import Scenario, ScenarioError
from serving.simulator.visit import Visit
from tests.unit.serving.simulator.fleets import WatchedRun, model, scenario


def visit(at: float, **changes: Any) -> Visit:
    return Visit(at, "app", Tier.FREE, "m", 100, 50, 50)._replace(**changes)


def ends(result: Result) -> dict[End, int]:
    return {end: sum(one == end for one in result.calls.end) for end in End}


def test_idle_engine_answers_at_once() -> None:
    result = Run(scenario(traffic=[]), coming=[visit(1.0)]).run()
    calls = result.calls
    assert ends(result)[End.SERVED] == 1
    assert calls.started[0] == 1.0
    assert calls.first_token_s(0) == pytest.approx(0.0065 + 100 * 3.5e-5, rel=0.01)
    assert calls.ended[0] - calls.first[0] == pytest.approx(49 * 0.0065, rel=0.05)
    assert calls.output_tokens[0] == 50


def test_same_seed_gives_the_same_result_and_another_seed_another() -> None:
    def fingerprint(seed: int) -> str:
        busy = scenario(
            duration_s=60.0,
            models=[model(fails_every_s=20.0, replicas={"least": 1, "most": 3})],
            tenants=[{"name": "app", "count": 3, "comes_again": True}],
        )
        return simulate(busy, seed).fingerprint()

    assert fingerprint(1) == fingerprint(1)
    assert fingerprint(1) != fingerprint(2)


def test_result_does_not_depend_on_how_this_process_hashes_text() -> None:
    code = (
        "from tests.unit.serving.simulator.fleets import model, scenario\n"
        "from serving.simulator.run import simulate\n"
        "told = scenario(duration_s=40.0, models=[model(fails_every_s=10.0), model(name='n')], "
        "tenants=[{'name': 'a', 'count': 5}, {'name': 'b', 'tier': 'paid'}], "
        "traffic=[{'kind': 'poisson', 'model': name, 'per_s': 20.0} for name in ('m', 'n')])\n"
        "print(simulate(told).fingerprint())"
    )
    said = [
        subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True)
        for seed in ("1", "2")
    ]
    assert len(said[0].stdout) == 65
    assert said[0].stdout == said[1].stdout


def test_first_call_of_a_model_without_replicas_waits_for_a_cold_start() -> None:
    result = Run(scenario(traffic=[], models=[model(replicas={"least": 0, "most": 2})]), coming=[visit(5.0)]).run()
    assert ends(result)[End.SERVED] == 1
    assert 10.0 < result.calls.first_token_s(0) < 13.0
    assert max(result.series["m"].starting) == 1


def test_calls_of_a_replica_that_fails_go_on_elsewhere_from_what_they_have() -> None:
    long = [visit(0.1 * number, output_tokens=2000, expected_tokens=2000) for number in range(20)]
    result = Run(scenario(traffic=[], models=[model(replicas={"least": 2, "most": 2}, fails_every_s=8.0)]), coming=long).run()
    assert sum(result.broke.values()) > 0
    assert sum(result.calls.resumed) > 0
    assert ends(result)[End.SERVED] == 20
    assert set(result.calls.output_tokens) == {2000}


def test_calls_fail_where_nothing_comes_back_in_time() -> None:
    gpus = [{"name": "spot", "kind": "H100", "gpus_per_node": 2, "volatile": True, "leaves": {"at_s": [3.0], "away_s": 100.0}}]
    least = {"least": 0, "most": 2, "start": 2}
    fleet = scenario(traffic=[], gpus=gpus, models=[model(replicas=least)], rules={"cold_s": 5.0}, autoscaling={"policy": "none"})
    result = Run(fleet, coming=[visit(1.0, output_tokens=4000), visit(4.0), visit(110.0)]).run()
    assert [End(end) for end in result.calls.end] == [End.FAILED, End.TURNED_AWAY, End.SERVED]
    assert result.lost == {"m": 2}
    assert result.calls.ended[0] == pytest.approx(8.0)
    assert result.calls.ended[1] == pytest.approx(9.0)


def test_node_that_comes_back_is_used_again() -> None:
    gpus = [{"name": "spot", "kind": "H100", "gpus_per_node": 2, "volatile": True, "leaves": {"at_s": [3.0], "away_s": 20.0}}]
    least = {"least": 0, "most": 2, "start": 2}
    result = Run(scenario(gpus=gpus, models=[model(replicas=least)], autoscaling={"policy": "none"})).run()
    assert list(result.series["m"].ready)[:5] == [2, 0, 0, 0, 2]
    assert result.series["m"].gpu_s[-1] == pytest.approx(2 * (120.0 - 20.0))


def test_what_a_tenants_limits_forbid_never_reaches_the_waiting_room() -> None:
    limited = scenario(traffic=[], tenants=[{"name": "app", "limits": {"requests_per_minute": 3}}])
    result = Run(limited, coming=[visit(1.0 + 0.1 * number) for number in range(5)]).run()
    assert ends(result) == {End.UNDER_WAY: 0, End.SERVED: 3, End.TURNED_AWAY: 2, End.FAILED: 0}
    assert result.series["m"].over_limit[-1] == 2
    assert result.series["m"].turned_away[-1] == 0
    assert 0.0 < result.calls.told_s[4] <= 60.0


def test_who_comes_again_as_told_is_served_when_the_limit_lets_him() -> None:
    limited = scenario(traffic=[], tenants=[{"name": "app", "limits": {"requests_per_minute": 3}}])
    result = Run(limited, coming=[visit(1.0 + 0.1 * number, comes_again=True) for number in range(5)]).run()
    assert ends(result)[End.SERVED] == 5
    assert list(result.calls.turned) == [0, 0, 0, 1, 1]
    assert result.calls.last_came[4] == pytest.approx(1.4 + result.calls.told_s[4])


def test_whose_month_is_used_up_does_not_come_again() -> None:
    limited = scenario(traffic=[], tenants=[{"name": "app", "limits": {"tokens_per_month": 150}}])
    result = Run(limited, coming=[visit(1.0, comes_again=True), visit(2.0, comes_again=True)]).run()
    assert [End(end) for end in result.calls.end] == [End.SERVED, End.TURNED_AWAY]
    assert result.calls.told_s[1] == math.inf


def test_call_beyond_the_models_context_fails_and_leaves_no_place_taken() -> None:
    result = Run(scenario(traffic=[]), coming=[visit(1.0, prompt_tokens=40_000)]).run()
    assert ends(result)[End.FAILED] == 1
    assert result.series["m"].running[-1] == 0


def test_draining_replica_answers_what_it_has() -> None:
    class Down:
        def __init__(self, subject: Subject) -> None:
            pass

        def decide(self, signal: Signal, current: int, now: float) -> int:
            return 2 if now < 4.0 else 1

    fleet = scenario(traffic=[], models=[model(replicas={"least": 1, "most": 2, "start": 2})])
    result = WatchedRun(fleet, coming=[visit(0.1 * number, output_tokens=1500) for number in range(20)], make=Down).run()
    assert ends(result)[End.SERVED] == 20
    assert max(result.series["m"].draining) == 1
    assert sum(result.calls.resumed) == 0
    assert list(result.series["m"].ready)[-1] == 1


def test_more_is_asked_for_than_there_are_gpus() -> None:
    few = [{"name": "node", "kind": "H100", "gpus_per_node": 2}]
    fleet = scenario(
        gpus=few,
        models=[model(name="m"), model(name="n")],
        traffic=[{"kind": "poisson", "model": name, "per_s": 60.0} for name in ("m", "n")],
    )
    result = WatchedRun(fleet).run()
    assert max(result.series["m"].refused) + max(result.series["n"].refused) > 0
    assert all(m + n <= 2 for m, n in zip(result.series["m"].ready, result.series["n"].ready, strict=True))


def test_policy_that_there_is_not_is_named() -> None:
    with pytest.raises(ScenarioError, match=r"no policy 'magic'; there are daemun and none"):
        Run(scenario(autoscaling={"policy": "magic"}))


@st.composite
def fleets(draw: st.DrawFn) -> Scenario:
    """Few replicas, calls enough for waiting, failures, nodes that leave, limits, callers who come again."""
    volatile = draw(st.booleans())
    least = 0 if volatile else draw(st.integers(0, 2))
    maybe = st.one_of(st.none(), st.floats(5.0, 60.0))
    groups = draw(st.integers(1, 2))
    return scenario(
        seed=draw(st.integers(0, 1000)),
        duration_s=draw(st.floats(10.0, 80.0)),
        gpus=[
            {
                "name": f"group{number}",
                "kind": "H100",
                "nodes": draw(st.integers(1, 2)),
                "gpus_per_node": draw(st.integers(1, 3)),
                "volatile": volatile,
                "leaves": {"every_s": draw(maybe), "away_s": draw(st.floats(1.0, 30.0)), "at_s": [15.0]},
            }
            for number in range(groups)
        ],
        models=[
            model(
                name=name,
                cold_start_s=draw(st.floats(0.0, 15.0)),
                replicas={"least": least, "most": draw(st.integers(max(1, least), 6))},
                runs_on=[{"kind": "H100", "part": draw(st.sampled_from([0.3, 0.5, 1.0])), "speed": 0.2}],
                fails_every_s=draw(maybe),
            )
            for name in ("m", "n")[: draw(st.integers(1, 2))]
        ],
        tenants=[
            {"name": "free", "tier": "free", "comes_again": draw(st.booleans()), "patience_s": draw(maybe)},
            {"name": "paid", "tier": "paid", "limits": {"requests_per_minute": draw(st.sampled_from([None, 20]))}},
            {"name": "bulk", "tier": "batch", "share": 0.3},
        ],
        traffic=[
            {
                "kind": "poisson",
                "model": "m",
                "per_s": draw(st.floats(0.5, 12.0)),
                "prompt_tokens": {"mean": 1000, "most": 20_000},
                "output_tokens": {"mean": 200},
            }
        ],
        rules={"most_waiting": draw(st.sampled_from([8, 64])), "busy_s": 10.0, "cold_s": 15.0},
        autoscaling={"policy": draw(st.sampled_from(["daemun", "none"])), "drain_s": draw(st.sampled_from([0.0, 5.0, 60.0]))},
    )


@settings(max_examples=30, deadline=None)
@given(fleets())
def test_no_call_is_lost_and_nothing_is_over_committed(fleet: Scenario) -> None:
    run = WatchedRun(fleet)
    result = run.run()
    run.check()
    calls, count = result.calls, ends(result)
    assert len(calls) == sum(count.values()) == sum(series.came[-1] for series in result.series.values())
    assert count[End.SERVED] == sum(series.served[-1] for series in result.series.values())
    assert count[End.FAILED] == sum(series.failed[-1] for series in result.series.values())
    under_way = sum(service.room.running + service.room.waiting for service in run.fleet.services.values())
    assert under_way <= count[End.UNDER_WAY]
    for row, end in enumerate(calls.end):
        known = (calls.came[row], calls.last_came[row], calls.started[row], calls.first[row], calls.ended[row])
        past = [at for at in known if not math.isnan(at)]
        assert past == sorted(past) or calls.turned[row], known
        assert (end == End.UNDER_WAY) == math.isnan(calls.ended[row])
        if end == End.SERVED:
            assert not math.isnan(calls.first[row])
            assert calls.output_tokens[row] > 0
        if end == End.TURNED_AWAY:
            assert calls.turned[row] == 1
    gpus = sum(node.gpus for node in fleet.facts().nodes)
    assert sum(series.gpu_s[-1] for series in result.series.values()) <= gpus * fleet.duration_s * (1 + 1e-9)
