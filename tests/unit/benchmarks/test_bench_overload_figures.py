"""What a run over HTTP comes to, from its calls; and what is held against the aims."""

from __future__ import annotations

from math import inf

import pytest

from benchmarks.gateway.peers import DAEMUN, DIRECT
from benchmarks.overload.http_aims import verdicts
from benchmarks.overload.http_course import Plan, Results
from benchmarks.overload.http_figures import RunFigures, TierFigures, of_run, pooled
from benchmarks.overload.http_plan import Call, LoadPlan, TierLoad
from benchmarks.overload.http_report import tables

TIERS = [TierLoad("paid", 0.5, 2.0, None, ["a"]), TierLoad("free", 0.5, 4.0, 2.0, ["b"])]
PLAN = LoadPlan(
    ports=[1],
    path="/",
    model="m",
    tiers=TIERS,
    says_tier=True,
    exact=False,
    per_s=10.0,
    warm_s=5.0,
    seconds=10.0,
    tail_s=2.0,
    seed=1,
)


def call(due_s: float = 6.0, tier: int = 0, **fields: object) -> Call:
    made = Call(tier, due_s, 0.001, status=200)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def test_tokens_are_good_if_the_first_came_in_time_for_its_tier() -> None:
    figures = of_run(
        PLAN,
        [
            call(first_s=1.9, ended_s=3.0, tokens=10),
            call(first_s=2.1, ended_s=3.0, tokens=20),
            call(first_s=2.1, ended_s=3.0, tokens=40, tier=1),
            call(due_s=1.0, first_s=1.0, ended_s=6.0, tokens=80),  # not asked while it was measured, but answered then
        ],
    )
    assert (figures.tokens_per_s, figures.goodput) == (15.0, 13.0)
    assert figures.asked == 3
    assert [(tier.asked, tier.in_time) for tier in figures.tiers] == [(2, 1), (1, 1)]


def test_every_call_ends_in_one_way() -> None:
    figures = of_run(
        PLAN,
        [
            call(first_s=0.5, ended_s=3.0, tokens=10),
            call(status=503, ended_s=0.1, retry_after_s=7.0, error="server_overloaded"),
            call(status=503, ended_s=0.1, error="server_overloaded"),
            call(status=200, ended_s=2.0, error="queue_timeout"),
            call(status=0),
            call(status=0, broken=True),
            call(status=500, ended_s=0.1, error="internal_error"),
            call(status=200, first_s=0.1, error="upstream_unreachable", tokens=3),
        ],
    )
    assert figures.asked == 8
    assert (figures.refused, figures.with_retry_after, figures.evicted, figures.unfinished, figures.failed) == (2, 1, 1, 1, 3)
    assert sorted(figures.failures) == ["broken after status 0", "status 200 upstream_unreachable", "status 500 internal_error"]
    assert figures.goodput == 1.0, "a stream that breaks is worth nothing"


def test_run_counts_only_if_calls_were_sent_when_they_were_due() -> None:
    assert of_run(PLAN, [call()] * 100).counts
    late = [call() for _ in range(100)]
    for one in late[:2]:
        one.late_s = 0.2
    assert not of_run(PLAN, late).counts


def test_percentiles_are_over_the_calls_of_all_seeds() -> None:
    runs = [run(paid=(0.1,) * 50), run(paid=(0.1,) * 49 + (3.0,))]
    assert pooled(runs, "paid", 99) == 0.1
    assert pooled(runs[1:], "paid", 99) == 3.0
    assert pooled([run(paid=())], "paid", 50) == inf


def run(
    goodput: float = 100.0, paid: tuple[float, ...] = (0.2,), refused: int = 10, told: int = 10, failed: int = 0
) -> RunFigures:
    tiers = tuple(TierFigures(tier.name, len(paid), tuple(sorted(paid)), len(paid)) for tier in (*TIERS, BATCH))
    return RunFigures(100, refused, told, 0, 0, failed, {}, 120.0, goodput, tiers, 0.001, 0.002)


BATCH = TierLoad("batch", 0.5, 4.0, 2.0, ["b"])


def lines(**by_step: RunFigures) -> list[str]:
    results = Results(capacity=(10.0, 160.0))
    for step, figures in by_step.items():
        results.runs[DAEMUN, float(step[1:].replace("_", "."))].append(figures)
        results.runs[DIRECT, float(step[1:].replace("_", "."))].append(run(goodput=5.0))
    return [verdict.line() for verdict in verdicts(results)]


def test_aims_hold_at_their_bounds_and_are_short_beyond_them() -> None:
    assert lines(x0_8=run(80.0), x1=run(100.0), x2=run(95.0), x10=run(90.0, paid=(0.25,)))[:3] == [
        "HOLDS goodput_at_2x_of_peak 0.95 >=0.95",
        "HOLDS goodput_at_10x_of_peak 0.9 >=0.9",
        "HOLDS paid_p99_first_token_at_10x_of_0.8x 1.25 <=1.25",
    ]
    assert lines(x0_8=run(80.0), x1=run(100.0), x2=run(94.0), x10=run(89.0, paid=(0.26,)))[:3] == [
        "SHORT goodput_at_2x_of_peak 0.94 >=0.95",
        "SHORT goodput_at_10x_of_peak 0.89 >=0.9",
        "SHORT paid_p99_first_token_at_10x_of_0.8x 1.3 <=1.25",
    ]


def test_refusal_without_a_time_and_a_failure_are_short() -> None:
    assert lines(x10=run(told=9, failed=1))[1:3] == ["SHORT refusals_with_retry_after 0.9 >=1", "SHORT failed_calls 1 <=0"]


def test_nobody_let_in_is_no_success() -> None:
    said = lines(x0_8=run(), x10=run(goodput=0.0, paid=()))
    assert "SHORT paid_p99_first_token_at_10x_of_0.8x inf <=1.25" in said


def test_what_was_measured_is_in_the_tables_and_nothing_else() -> None:
    results = Results(capacity=(10.0, 160.0))
    results.runs[DAEMUN, 10.0].append(run())
    results.gateway_share[DAEMUN, 10.0].append(0.25)
    text = tables(results, Plan())
    assert text.count("10 × (100/s)") == 3
    assert "direct" not in text
    assert tables(Results(), Plan()) == ""


@pytest.mark.parametrize(("plan", "complete"), [(Plan(), True), (Plan(seeds=(1, 2)), False), (Plan(targets=(DAEMUN,)), False)])
def test_document_is_written_only_after_everything(plan: Plan, complete: bool) -> None:
    assert plan.complete is complete
