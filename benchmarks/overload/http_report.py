"""The HTTP form's figures as tables in Markdown, for the terminal and for docs/overload-http.md. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import isinf

from benchmarks.aims import Verdict, verdict_table
from benchmarks.gateway.figures import shown
from benchmarks.gateway.setting import Setting
from benchmarks.overload.http_aims import peak_goodput
from benchmarks.overload.http_course import TIERS, Plan, Results
from benchmarks.overload.http_figures import RunFigures, pooled
from benchmarks.table import table


def tables(results: Results, plan: Plan) -> str:
    return "\n\n".join(part for part in (_goodput(results, plan), _first_tokens(results, plan), _ends(results, plan)) if part)


def document(setting: Setting, results: Results, plan: Plan, verdicts: Sequence[Verdict]) -> str:
    """docs/overload-http.md."""
    versions = ", ".join(f"{name} {version}".strip() for name, version in setting.versions.items())
    kind, timing = plan.kind, plan.timing
    calls, tokens = results.capacity
    seeds = ", ".join(map(str, plan.seeds))
    targets = ", ".join(f"{tier.name} {tier.target_s:g} s ({tier.share:.0%} of the calls)" for tier in TIERS)
    return f"""# Overload over HTTP

Written by `{setting.command}` on {setting.date}; do not edit.

- Machine: {setting.machine}
- Compared: {versions}; `direct` is the engines without a gateway
- Engines: {kind.replicas} simulated ones ({kind.figures}, {kind.scale:g} × as fast, {kind.seats} seats each)
- Capacity, 1 ×: engines that are never idle complete {calls:.1f} calls/s, {tokens:,.0f} tokens/s
- Load: open loop, seeds {seeds}; each run {timing.warm_s:g} s and then measured for {timing.seconds:g} s
- Targets for the first token: {targets}
- Of the two cores, other processes used meanwhile, in percent: {shown(results.others_percent, 1)}
- A run counts only if the generator kept its schedule; {results.dismissed} did not
- The engines noticed the end of a step late by at most, in ms: {shown(results.engine_late_ms, 1)}

The gateway has one core, engines and load share the other. Goodput is the tokens a second of calls whose first token came in
time. LiteLLM has no queue and no gate, and one core of it carries some 80 calls/s: at 10 × it is itself what is full.

## Aims

{verdict_table(verdicts)}

{tables(results, plan)}
"""


def _goodput(results: Results, plan: Plan) -> str:
    peak = peak_goodput(results)
    rows = [
        [
            *_label(name, step, results),
            shown([run.goodput for run in runs]),
            f"{shown([100 * run.goodput / peak for run in runs])} %" if peak else "–",
            shown([run.tokens_per_s for run in runs]),
            shown([100 * share for share in results.gateway_share[name, step]]) if name != "direct" else "–",
        ]
        for name, step, runs in _measured(results, plan)
    ]
    columns = ["load", "sent to", "goodput, tokens/s", "of daemun's peak", "all tokens/s", "of a core used, %"]
    return _section("## Goodput", columns, rows)


def _first_tokens(results: Results, plan: Plan) -> str:
    rows = [
        [*_label(name, step, results), *(_first_token(runs, tier.name) for tier in TIERS)]
        for name, step, runs in _measured(results, plan)
    ]
    columns = ["load", "sent to", *(f"{tier.name}: p50 / p99, s (in time)" for tier in TIERS)]
    return _section("## Time to the first token of calls that got one, all seeds together", columns, rows)


def _first_token(runs: Sequence[RunFigures], tier: str) -> str:
    asked = sum(run.tier(tier).asked for run in runs)
    in_time = sum(run.tier(tier).in_time for run in runs)
    middle, high = (pooled(runs, tier, percent) for percent in (50, 99))
    return "none" if isinf(middle) else f"{middle:.2f} / {high:.2f} ({in_time} of {asked})"


def _ends(results: Results, plan: Plan) -> str:
    rows = [
        [
            *_label(name, step, results),
            *(
                f"{sum(getattr(run, field) for run in runs):,}"
                for field in ("asked", "refused", "with_retry_after", "evicted", "unfinished", "failed")
            ),
            f"{max(run.late_p99_s for run in runs) * 1000:.1f}",
        ]
        for name, step, runs in _measured(results, plan)
    ]
    columns = [
        "load",
        "sent to",
        "calls",
        "refused",
        "with Retry-After",
        "evicted",
        "no word by the end",
        "failed",
        "sent late (p99), ms",
    ]
    return _section("## What became of the calls, all seeds together", columns, rows)


def _measured(results: Results, plan: Plan) -> list[tuple[str, float, list[RunFigures]]]:
    return [
        (name, step, results.runs[name, step]) for step in plan.steps for name in plan.targets if results.runs.get((name, step))
    ]


def _label(name: str, step: float, results: Results) -> list[str]:
    return [f"{step:g} × ({step * results.capacity[0]:.0f}/s)", name]


def _section(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return f"{title}\n\n{table(columns, rows)}" if rows else ""
