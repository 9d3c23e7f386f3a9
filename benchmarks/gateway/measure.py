"""The five measurements. Each adds its figures and says what it has found; none knows of aims or tables."""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.gateway import figures as names
from benchmarks.gateway import generator, wrk
from benchmarks.gateway.figures import Figures
from benchmarks.gateway.load.churn import ChurnPlan, ChurnReport
from benchmarks.gateway.load.crowd import CrowdPlan, CrowdReport
from benchmarks.gateway.load.rate import RatePlan, RateReport
from benchmarks.gateway.load.streams import StreamsPlan, StreamsReport
from benchmarks.gateway.peers import DIRECT, Gateway
from benchmarks.gateway.processes import BenchmarkError

CONNECTIONS = 64
STREAMS, CHUNKS, EVERY_MS = 600, 64, 10
WARM_S = 2.0
SATURATE_S = 2.0
OPEN_STREAMS, OPEN_PER_S, OPEN_EVERY_MS, OPEN_CALLS_PER_S = 10_000, 500.0, 2000, 100.0
CHURN_CALLS, CHURN_ABORTS, CHURN_LEGS = 200_000, 20_000, 8
_DESCRIPTORS_KEPT = 200  # for a gateway's own files, its listener and the short calls beside the streams
_KB, _MB = 1000.0, 1e6


@dataclass(frozen=True, slots=True)
class Session:
    """What every measurement gets: where figures go, where words go, how long one run takes."""

    figures: Figures
    say: Callable[[str], None]
    seconds: float


def calls(session: Session, gateways: Sequence[Gateway]) -> None:
    """Calls a second at 64 connections, not streaming."""
    for gateway in gateways:
        report = wrk.run(gateway, connections=CONNECTIONS, seconds=session.seconds)
        session.figures.add(names.CALLS_PER_S, gateway.name, report.good_per_s)
        session.figures.add(names.CALLS_FAILED, gateway.name, report.failed)
        session.say(f"{gateway.name}: {report.good_per_s:,.0f} calls/s, {report.failed} failed")


def latency(session: Session, gateways: Sequence[Gateway]) -> None:
    """The median at one connection, and the 99th percentile at half of what each can do; both less what `direct` takes."""
    direct = next(gateway for gateway in gateways if gateway.name == DIRECT)
    floor = wrk.run(direct, connections=1, seconds=session.seconds).p50_ms
    session.figures.add(names.P50_MS, DIRECT, floor)
    session.say(f"{DIRECT}: p50 {floor:.3f} ms at 1 connection")
    for gateway in gateways:
        if gateway.process is None:
            continue
        p50 = wrk.run(gateway, connections=1, seconds=session.seconds).p50_ms
        per_s = wrk.run(gateway, connections=CONNECTIONS, seconds=SATURATE_S).good_per_s / 2
        theirs, without = (_at_rate(one, per_s, session.seconds) for one in (gateway, direct))
        added = theirs.p99_ms - without.p99_ms
        session.figures.add(names.P50_MS, gateway.name, p50)
        session.figures.add(names.ADDED_P50_MS, gateway.name, p50 - floor)
        session.figures.add(names.HALF_RATE, gateway.name, per_s)
        session.figures.add(names.ADDED_P99_MS, gateway.name, added)
        session.figures.add(names.LATE_MS, gateway.name, theirs.late_ms)
        session.say(
            f"{gateway.name}: added p50 {p50 - floor:.3f} ms at 1 connection, added p99 {added:.2f} ms at {per_s:,.0f} calls/s"
        )


def _at_rate(gateway: Gateway, per_s: float, seconds: float) -> RateReport:
    if per_s <= 0:
        raise BenchmarkError(f"{gateway.name} answers no call")
    plan = RatePlan(gateway.port, gateway.key, per_s, seconds)
    return generator.run(plan, RateReport, timeout_s=seconds + 60)


def streams(session: Session, gateways: Sequence[Gateway]) -> None:
    """Whole streams a second with 600 open at once, and the gateway's processor time for each chunk."""
    for gateway in gateways:
        watch = None if gateway.process is None else gateway.process.pid
        plan = StreamsPlan(gateway.port, gateway.key, STREAMS, CHUNKS, EVERY_MS, WARM_S, session.seconds, watch)
        report = generator.run(plan, StreamsReport, timeout_s=session.seconds + 60)
        per_s = report.completed / report.seconds
        session.figures.add(names.STREAMS_PER_S, gateway.name, per_s)
        session.figures.add(names.STREAMS_FAILED, gateway.name, report.failed)
        said = f"{gateway.name}: {per_s:,.0f} streams/s, {report.failed} failed"
        if report.processor_s is not None and report.completed:
            us_per_chunk = report.processor_s / (report.completed * CHUNKS) * 1e6
            session.figures.add(names.US_PER_CHUNK, gateway.name, us_per_chunk)
            said += f", {us_per_chunk:.1f} µs a chunk"
        session.say(said + (f"; the first failure: {report.first_failure}" if report.failed else ""))


def most_open_streams() -> int:
    """As many as are wanted, or as the gateway has descriptors for: two a stream."""
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return OPEN_STREAMS
    return min(OPEN_STREAMS, (limit - _DESCRIPTORS_KEPT) // 2)


def open_streams(session: Session, gateway: Gateway, count: int) -> None:
    """So many slow streams open at once in one worker, and short calls beside them."""
    plan = CrowdPlan(
        gateway.port, gateway.key, count, OPEN_PER_S, OPEN_EVERY_MS, session.seconds, OPEN_CALLS_PER_S, _pid(gateway)
    )
    report = generator.run(plan, CrowdReport, timeout_s=plan.chunks * OPEN_EVERY_MS / 1000 * 2 + 120)
    per_stream = (report.open_bytes - report.before_bytes) / max(1, report.open) / _KB
    session.figures.add(names.OPEN_STREAMS, gateway.name, report.open)
    session.figures.add(names.OPEN_FAILED, gateway.name, report.failed)
    session.figures.add(names.KB_PER_STREAM, gateway.name, per_stream)
    session.figures.add(names.SHORT_P99_MS, gateway.name, report.calls.p99_ms)
    session.figures.add(names.SHORT_FAILED, gateway.name, report.calls.failed)
    session.say(f"{report.open:,} streams open at once, {report.failed} failed, {per_stream:.1f} kB each")
    session.say(
        f"meanwhile {report.calls.calls} short calls: p50 {report.calls.p50_ms:.1f} ms, p99 {report.calls.p99_ms:.1f} ms, "
        f"{report.calls.failed} failed; sent up to {report.calls.late_ms:.1f} ms late"
    )
    if report.first_failure:
        session.say(f"the first failure: {report.first_failure}")


def memory(session: Session, gateway: Gateway, share: float) -> None:
    """Resident memory over very many calls and aborted streams; `share` below 1 makes it shorter."""
    plan = ChurnPlan(
        gateway.port,
        gateway.key,
        warm_calls=round(CHURN_CALLS * share / 10),
        warm_aborts=round(CHURN_ABORTS * share / 10),
        calls=round(CHURN_CALLS * share),
        aborts=round(CHURN_ABORTS * share),
        legs=CHURN_LEGS,
        watch=_pid(gateway),
    )
    report = generator.run(plan, ChurnReport, timeout_s=1800)
    for resident in report.memory_bytes:
        session.figures.add(names.MEMORY_MB, gateway.name, resident / _MB)
    session.figures.add(names.CHURN_CALLS, gateway.name, report.calls)
    session.figures.add(names.CHURN_ABORTED, gateway.name, report.aborted)
    session.figures.add(names.CHURN_FAILED, gateway.name, report.failed)
    points = ", ".join(f"{resident / _MB:.1f}" for resident in report.memory_bytes)
    session.say(f"{report.calls:,} calls and {report.aborted:,} aborted streams, {report.failed} failed; MB: {points}")


def _pid(gateway: Gateway) -> int:
    if gateway.process is None:
        raise BenchmarkError(f"{gateway.name} is no process of its own")
    return gateway.process.pid
