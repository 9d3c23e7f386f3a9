"""The course of the HTTP form: who is started, what each is asked, in which order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from benchmarks.gateway.peers import DAEMUN, DIRECT, LITELLM
from benchmarks.gateway.processes import BenchmarkError, processor_s
from benchmarks.gateway.quiet import Watch
from benchmarks.overload import http_generator, http_peers, http_real
from benchmarks.overload.http_figures import RunFigures, of_run
from benchmarks.overload.http_peers import Behind, EngineKind, Target
from benchmarks.overload.http_plan import LoadPlan, TierLoad

TARGETS = (DAEMUN, DIRECT, LITELLM)
STEPS = (0.8, 1.0, 2.0, 10.0)
SEEDS = (1, 2, 3)
PAID, FREE, BATCH = "paid", "free", "batch"
TIERS = (
    TierLoad(PAID, 0.3, target_s=2.0, patience_s=None, keys=[]),
    TierLoad(FREE, 0.5, target_s=http_peers.PATIENCE_S + 2.0, patience_s=http_peers.PATIENCE_S, keys=[]),
    TierLoad(BATCH, 0.2, target_s=http_peers.PATIENCE_S + 3.0, patience_s=http_peers.PATIENCE_S, keys=[]),
)


@dataclass(frozen=True, slots=True)
class Timing:
    """Of one run, in seconds. Warm enough that what was in time only because it came first is over."""

    warm_s: float = 6.0
    seconds: float = 12.0
    tail_s: float = 2.0
    closed_s: float = 10.0


ENGINES, TIMING = EngineKind(), Timing()


@dataclass(frozen=True, slots=True)
class Plan:
    targets: tuple[str, ...] = TARGETS
    steps: tuple[float, ...] = STEPS
    seeds: tuple[int, ...] = SEEDS
    timing: Timing = TIMING
    kind: EngineKind = ENGINES

    @property
    def complete(self) -> bool:
        """Whether the document may be written."""
        return set(self.targets) >= set(TARGETS) and self.steps == STEPS and len(self.seeds) >= len(SEEDS)


@dataclass(slots=True)
class Results:
    """`runs`: by target and step, one for each seed that counts. `capacity`: calls and tokens a second."""

    capacity: tuple[float, float] = (0.0, 0.0)
    runs: defaultdict[tuple[str, float], list[RunFigures]] = field(default_factory=lambda: defaultdict(list))
    dismissed: int = 0
    engine_late_ms: list[float] = field(default_factory=list)
    others_percent: list[float] = field(default_factory=list)
    gateway_share: defaultdict[tuple[str, float], list[float]] = field(default_factory=lambda: defaultdict(list))


Say = Callable[[str], None]


def run(plan: Plan, say: Say, folder: Path) -> Results:
    """Raises BenchmarkError."""
    results = Results()
    names = [tier.name for tier in TIERS]
    with ExitStack() as started:
        engines = started.enter_context(http_peers.engines(plan.kind, folder))
        targets = []
        for name in plan.targets:
            say(f"starting {name}")
            targets.append(started.enter_context(http_peers.target(name, engines, names, folder)))
        direct = started.enter_context(http_peers.target(DIRECT, engines, names, folder))
        _take_turns(_Course(folder, plan, say, results), engines, targets, capacity(direct, plan))
    return results


def run_real(plan: Plan, say: Say, folder: Path) -> Results:
    """Against `daemun up`. Raises BenchmarkError."""
    results = Results()
    say("starting daemun up")
    with http_real.stack(folder, tuple(tier.name for tier in TIERS)) as real:
        through, direct = real.targets
        _one(_Course(folder, plan, lambda _: None, Results(capacity=(5.0, 0.0))), real.engine, Turn(0, 1.0, direct))  # warms it
        _take_turns(_Course(folder, plan, say, results), real.engine, (through, direct), capacity(direct, plan))
    return results


@dataclass(frozen=True, slots=True)
class _Course:
    """What holds for every run."""

    folder: Path
    plan: Plan
    say: Say
    results: Results


@dataclass(frozen=True, slots=True)
class Turn:
    seed: int
    step: float
    target: Target


def _take_turns(course: _Course, engines: Behind, targets: Sequence[Target], capacity: tuple[float, float]) -> None:
    """What is compared is measured one beside the other."""
    course.results.capacity = capacity
    course.say("engines that are never idle complete {:.1f} calls/s, {:.0f} tokens/s".format(*capacity))
    for seed in course.plan.seeds:
        for step in course.plan.steps:
            for target in targets:
                _one(course, engines, Turn(seed, step, target))


def _one(course: _Course, engines: Behind, turn: Turn) -> None:
    results, target, where = course.results, turn.target, f"{turn.target.name} at {turn.step:g} ×, seed {turn.seed}"
    if not http_peers.settle(engines, target):
        raise BenchmarkError(f"{where}: {target.name} does not come to rest")
    load = load_plan(target, course.plan, turn.step * results.capacity[0], turn.seed)
    watch, before = Watch(), _processor_s(target)
    report = http_generator.open_loop(load)
    results.others_percent.append(watch.others_percent())
    results.gateway_share[target.name, turn.step].append((_processor_s(target) - before) / report.took_s)
    results.engine_late_ms.append(engines.late_ms())
    (course.folder / f"{target.name}-{turn.step:g}x-seed{turn.seed}.json").write_bytes(msgspec.json.encode(report.calls))
    figures = of_run(load, report.calls)
    course.say(f"{where}: {line(figures)}; engines late by up to {results.engine_late_ms[-1]:.0f} ms")
    if figures.counts:
        results.runs[target.name, turn.step].append(figures)
    else:
        results.dismissed += 1
        course.say(f"{where}: the generator was late (p99 {figures.late_p99_s * 1000:.0f} ms); this run does not count")


def line(figures: RunFigures) -> str:
    first = ", ".join(f"{tier.name} {tier.first_percentile(50):.2f}/{tier.first_percentile(99):.2f} s" for tier in figures.tiers)
    said = (
        f"{figures.asked} calls, goodput {figures.goodput:.0f} of {figures.tokens_per_s:.0f} tokens/s, first token {first}, "
        f"{figures.refused} refused ({figures.with_retry_after} with Retry-After), {figures.evicted} evicted, "
        f"{figures.unfinished} unfinished, {figures.failed} failed"
    )
    return f"{said}: {dict(figures.failures)}" if figures.failed else said


def load_plan(target: Target, plan: Plan, per_s: float, seed: int) -> LoadPlan:
    return LoadPlan(
        ports=list(target.ports),
        path=target.path,
        model=target.model,
        tiers=[TierLoad(tier.name, tier.share, tier.target_s, tier.patience_s, target.keys[tier.name]) for tier in TIERS],
        says_tier=target.name == DAEMUN,
        exact=target.exact,
        per_s=per_s,
        warm_s=plan.timing.warm_s,
        seconds=plan.timing.seconds,
        tail_s=plan.timing.tail_s,
        seed=seed,
    )


def capacity(direct: Target, plan: Plan) -> tuple[float, float]:
    """Calls and tokens a second of engines that always have enough waiting. Raises BenchmarkError."""
    clients = plan.kind.seats * plan.kind.replicas * 2
    report = http_generator.closed_loop(load_plan(direct, plan, per_s=1.0, seed=0), clients, plan.timing.closed_s)
    if report.failed or not report.calls:
        raise BenchmarkError(f"the engines failed {report.failed} calls of the {report.calls + report.failed} that measure them")
    return report.calls / report.seconds, report.tokens / report.seconds


def _processor_s(target: Target) -> float:
    return processor_s(target.process) if target.process is not None else 0.0
