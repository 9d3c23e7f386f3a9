"""Figures as tables in Markdown, for the terminal and for docs/benchmarks.md. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.aims import Verdict, verdict_table
from benchmarks.gateway import figures as names
from benchmarks.gateway.figures import Figures, shown
from benchmarks.gateway.measure import CHUNKS, CONNECTIONS, EVERY_MS, STREAMS
from benchmarks.gateway.peers import DAEMUN, DIRECT
from benchmarks.gateway.setting import Setting
from benchmarks.table import table


def tables(figures: Figures, gateways: Sequence[str]) -> str:
    """All that was measured; what was not is left out."""
    parts = [
        _calls(figures, gateways),
        _latency(figures, gateways),
        _streams(figures, gateways),
        _open(figures),
        _memory(figures),
    ]
    return "\n\n".join(part for part in parts if part)


def document(setting: Setting, figures: Figures, verdicts: Sequence[Verdict]) -> str:
    """docs/benchmarks.md."""
    versions = ", ".join(f"{name} {version}".strip() for name, version in setting.versions.items() if name != DIRECT)
    others = shown(figures.of(names.OTHERS_PERCENT, names.MACHINE), 1)
    return f"""# Benchmarks

Written by `{setting.command}` on {setting.date}; do not edit. What was tried to get there is in [LOG.md](LOG.md).

- Machine: {setting.machine}
- Compared: {versions}
- {setting.rounds} interleaved rounds of {setting.seconds:g} s a run; medians, and in brackets the smallest and the largest
- Of the two cores, other processes used meanwhile, in percent: {others}

Each gateway runs as one process on one core; the load and the scripted engine share another. daemun checks keys, queues, counts
tokens and keeps its ledger; the routers have their cheapest policy and log no calls; LiteLLM has a master key and no database.
`direct` is the engine without a gateway: the floor. Absolute figures belong to this machine and this hour; compare only within
a table.

## Aims

{verdict_table(verdicts)}

{tables(figures, list(setting.versions))}
"""


def _calls(figures: Figures, gateways: Sequence[str]) -> str:
    rows = [
        [
            name,
            shown(figures.of(names.CALLS_PER_S, name)),
            shown(figures.ratios(names.CALLS_PER_S, DAEMUN, name), 2),
            shown(figures.of(names.CALLS_FAILED, name)),
        ]
        for name in _measured(figures, names.CALLS_PER_S, gateways)
    ]
    title = f"## Calls a second, not streaming, at {CONNECTIONS} connections"
    return _section(title, ["gateway", "calls/s", "daemun is × as fast", "failed"], rows)


def _latency(figures: Figures, gateways: Sequence[str]) -> str:
    rows = [
        [
            name,
            shown(figures.of(names.P50_MS, name), 3),
            shown(figures.of(names.ADDED_P50_MS, name), 3),
            shown(figures.of(names.HALF_RATE, name)),
            shown(figures.of(names.ADDED_P99_MS, name), 2),
            shown(figures.of(names.LATE_MS, name), 2),
        ]
        for name in _measured(figures, names.P50_MS, gateways)
    ]
    columns = ["gateway", "p50 at 1 connection, ms", "added, ms", "half its saturation rate, calls/s", "added p99 there, ms"]
    return _section("## Latency", [*columns, "of it sent late (p99), ms"], rows)


def _streams(figures: Figures, gateways: Sequence[str]) -> str:
    rows = [
        [
            name,
            shown(figures.of(names.STREAMS_PER_S, name)),
            shown(figures.of(names.US_PER_CHUNK, name), 1),
            shown(figures.of(names.STREAMS_FAILED, name)),
        ]
        for name in _measured(figures, names.STREAMS_PER_S, gateways)
    ]
    title = f"## {STREAMS} streams at once, each of {CHUNKS} chunks, {EVERY_MS} ms apart"
    return _section(title, ["gateway", "whole streams/s", "processor time a chunk, µs", "failed"], rows)


def _open(figures: Figures) -> str:
    labels = {
        names.OPEN_STREAMS: "open at once",
        names.OPEN_FAILED: "failed",
        names.KB_PER_STREAM: "kB each",
        names.SHORT_P99_MS: "p99 of short calls meanwhile, ms",
        names.SHORT_FAILED: "short calls failed",
    }
    digits = {names.KB_PER_STREAM: 1, names.SHORT_P99_MS: 1}
    row = [shown(figures.of(name, DAEMUN), digits.get(name, 0)) for name in labels]
    rows = [row] if figures.of(names.OPEN_STREAMS, DAEMUN) else []
    return _section("## Streams open at once in one worker of daemun", list(labels.values()), rows)


def _memory(figures: Figures) -> str:
    points = figures.of(names.MEMORY_MB, DAEMUN)
    if not points:
        return ""
    calls, aborted, failed = (
        figures.of(name, DAEMUN)[0] for name in (names.CHURN_CALLS, names.CHURN_ABORTED, names.CHURN_FAILED)
    )
    rows = [[f"{share / (len(points) - 1):.0%}", f"{megabytes:.1f}"] for share, megabytes in enumerate(points)]
    title = f"## Memory of one worker of daemun over {calls:,.0f} calls and {aborted:,.0f} aborted streams"
    return _section(title, ["done", "resident, MB"], rows) + f"\n\n{failed:,.0f} failed."


def _measured(figures: Figures, figure: str, gateways: Sequence[str]) -> list[str]:
    return [name for name in gateways if figures.of(figure, name)]


def _section(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return f"{title}\n\n{table(columns, rows)}" if rows else ""
