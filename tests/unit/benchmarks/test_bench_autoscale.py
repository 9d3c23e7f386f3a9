"""The autoscaling benchmark: verdicts that can be lost, tables that show it, and the same calls for every policy."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.autoscale.aims import OWN, RAY_DEFAULT, Score, against, tables, total, verdicts
from benchmarks.autoscale.scenarios import scenarios

SCORE = Score("steady", OWN, 1, minutes=60, outside=2, gpu_hours=3.0, calls=1000, in_time=990, first_token_p99_s=1.5)


def rival(outside: int, gpu_hours: float, name: str = RAY_DEFAULT) -> Score:
    return replace(SCORE, policy=name, outside=outside, gpu_hours=gpu_hours)


@pytest.mark.parametrize(
    ("outside", "gpu_hours", "holds"),
    [
        (10, 3.0, True),  # five times fewer minutes at as many GPU-hours
        (9, 3.0, False),
        (10, 2.9, False),  # but more GPU-hours
        (2, 4.0, True),  # a quarter fewer GPU-hours at as many minutes
        (2, 3.9, False),
        (1, 40.0, False),  # but more minutes
    ],
)
def test_aim_holds_by_minutes_or_by_hours(outside: int, gpu_hours: float, holds: bool) -> None:
    assert against(OWN, "ray", total([SCORE]), total([rival(outside, gpu_hours)])).holds == holds


def test_nobody_is_five_times_better_than_perfect() -> None:
    perfect = replace(SCORE, outside=0)
    assert not against(OWN, "ray", total([perfect]), total([rival(0, 3.0)])).holds
    assert against(OWN, "ray", total([perfect]), total([rival(0, 4.0)])).holds


def test_verdicts_are_over_all_scenarios_and_seeds_and_begin_with_rays_default() -> None:
    scores = [
        SCORE,
        replace(SCORE, seed=2),
        rival(10, 3.0),
        rival(5, 4.0),
        rival(9, 9.0, "ray, 24 calls"),
        rival(0, 1.0, "oracle"),
    ]
    lines = [verdict.line() for verdict in verdicts(scores)]
    assert [line.split()[:2] for line in lines] == [
        ["SHORT", "daemun_against_ray_2_calls"],
        ["HOLDS", "daemun_against_ray_24_calls"],
    ]
    assert "4 against 15 minutes outside, 0.86 of the GPU-hours" in lines[0]


def test_tables_show_each_scenario_and_all_together() -> None:
    text = tables([SCORE, replace(SCORE, seed=2, outside=7), rival(10, 3.0), replace(SCORE, scenario="step")])
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## steady", "## step", "## All together"]
    assert "| daemun       |        9 of 120 | 2 to 7 |       6.0 |  99.00% |        1.50 |" in text
    assert "| ray, 2 calls |        10 of 60 |     10 |       3.0 |  99.00% |        1.50 |" in text


def test_there_are_scenarios_enough_and_one_more_where_there_is_a_trace(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6,374,44\n")
    names = [each.name for each in scenarios(None)]
    assert len(names) == len(set(names)) >= 5
    assert [each.name for each in scenarios(tmp_path / "trace.csv")] == [*names, "azure"]


class TestContest:
    """Needs Ray, which the serving extras bring."""

    ray = pytest.importorskip("ray.serve.autoscaling_policy")

    def test_every_policy_gets_the_same_calls_and_the_same_run_the_same_score(self) -> None:
        from benchmarks.autoscale.contest import POLICIES, play

        short = scenarios(None)[0].model_copy(update={"duration_s": 90.0})
        scores = {name: play(short, name, 3) for name in POLICIES}
        assert {score.calls for score in scores.values()} == {scores[OWN].calls}
        assert scores[OWN].calls > 300
        assert all(score.gpu_hours > 0 for score in scores.values())
        assert play(short, OWN, 3) == scores[OWN] != play(short, OWN, 4)
        # Dozens of calls at once on four replicas are many times two each.
        assert scores[RAY_DEFAULT].gpu_hours > scores["ray, 48 calls"].gpu_hours

    def test_all_runs_are_made_and_handed_back(self) -> None:
        from benchmarks.autoscale.contest import POLICIES, contest

        short = [each.model_copy(update={"duration_s": 5.0}) for each in scenarios(None)[:2]]
        scores = list(contest(short, [1, 2], processes=1))
        runs = {(score.scenario, score.policy, score.seed) for score in scores}
        assert runs == {(each.name, policy, seed) for each in short for policy in POLICIES for seed in (1, 2)}
        assert len(scores) == len(runs)
