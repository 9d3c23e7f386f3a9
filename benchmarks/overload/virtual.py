"""The waiting room's own code before simulated engines, in virtual time: what each scenario measures. Pure but for progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from benchmarks.overload.traffic import OUTPUT_TOKENS, PAID_TARGET_S, PROMPT_TOKENS, Source, mix, tenants, visit, visits
from engines.figures import load
from engines.model import EngineFigures
from gateway.policy.admission import Rules, WaitingRoom
from gateway.policy.limits import Tier
from loadtests.overload_sim import Simulation, Visit

ENGINE, REPLICAS = "h100-8b", 2
RULES = Rules(target_first_token_s=0.2)  # the engines alone; paid calls are to have theirs within 1 s
CALM, LOADS = 0.8, (0.8, 1.0, 1.5, 2.0, 5.0, 10.0)
WARM_S, END_S = 20.0, 80.0
STEP_AT_S, STEP_END_S, STEP_WINDOW_S = 40.0, 60.0, 0.5
OTHERS, OTHERS_LOAD, NOISE = 9, 0.05, 100.0
USERS, RUSH_S, USERS_AT_ONCE = 10_000, 60.0, 200
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class LoadRun:
    """`goodput`: tokens a second of calls that met their target; `tokens`: of all. Times of paid calls that were served."""

    goodput: float
    tokens: float
    paid_first_s: tuple[float, ...]
    paid_served: float
    told: float
    preemptions: int


@dataclass(frozen=True, slots=True)
class NoisyRun:
    """First tokens of the others; how many of them were turned away; the cost served to each of them, of its demand."""

    first_s: tuple[float, ...]
    refused: int
    calls: int
    fairness: float


@dataclass(frozen=True, slots=True)
class LaunchRun:
    """`told_errors`: of each caller who was told a time, by how many seconds it was missed, and what was told."""

    users: int
    served: int
    at_once: int
    told: int
    most_told: int
    told_errors: tuple[tuple[float, float], ...]
    took_s: float


def figures() -> EngineFigures:
    return load(ENGINE)


def capacity(seed: int) -> float:
    """Calls a second that the engines complete when they always have enough to do."""
    per_s = figures().calls_per_s(PROMPT_TOKENS, OUTPUT_TOKENS) * REPLICAS
    simulation = Simulation(figures(), REPLICAS, None, seed)
    simulation.run(visits(mix(3.0 * per_s), END_S, seed), END_S)
    return sum(WARM_S <= outcome.ended < END_S for outcome in simulation.outcomes) / (END_S - WARM_S)


def at_load(times: float, per_s: float, seed: int, *, gate: bool) -> LoadRun:
    simulation = Simulation(figures(), REPLICAS, WaitingRoom(RULES) if gate else None, seed)
    outcomes = simulation.run(visits(mix(times * per_s), END_S, seed), END_S)
    ended = [outcome for outcome in outcomes if WARM_S <= outcome.ended < END_S]
    paid = [outcome for outcome in outcomes if outcome.visit.tier is Tier.PAID and WARM_S <= outcome.came < END_S - 5.0]
    seconds = END_S - WARM_S
    return LoadRun(
        goodput=sum(outcome.tokens for outcome in ended if outcome.was_good) / seconds,
        tokens=sum(outcome.tokens for outcome in ended) / seconds,
        paid_first_s=tuple(outcome.first_token_s for outcome in paid if outcome.was_served),
        paid_served=sum(outcome.was_served for outcome in paid) / len(paid),
        told=sum(bool(outcome.told) for outcome in outcomes) / len(outcomes),
        preemptions=sum(engine.preemptions for engine in simulation.engines),
    )


def after_step(per_s: float, seed: int) -> list[tuple[float, float]]:
    """From calm to ten times capacity at once. Of the paid calls served: when after the step, time to first token."""
    simulation = Simulation(figures(), REPLICAS, WaitingRoom(RULES), seed)
    step = 10.0 / CALM
    coming = visits(mix(CALM * per_s), STEP_END_S, seed, lambda at: step if at >= STEP_AT_S else 1.0)
    outcomes = simulation.run(coming, STEP_END_S)
    paid = [outcome for outcome in outcomes if outcome.visit.tier is Tier.PAID and outcome.was_served]
    return [(o.came - STEP_AT_S, o.first_token_s) for o in paid if STEP_AT_S <= o.came < STEP_END_S - 3.0]


def noisy(neighbour: float, per_s: float, seed: int) -> NoisyRun:
    """Free tenants of equal demand, the last of whom sends so many times as much; batch work takes what is idle."""
    names = tenants("tenant", OTHERS + 1)
    each = OTHERS_LOAD * per_s
    sources = [Source(Tier.FREE, each, (name,)) for name in names[:-1]]
    if neighbour:
        sources.append(Source(Tier.FREE, each * neighbour, names[-1:]))
    sources.append(Source(Tier.BATCH, 2.0 * per_s, ("bulk",)))
    outcomes = Simulation(figures(), REPLICAS, WaitingRoom(RULES), seed).run(visits(tuple(sources), END_S, seed), END_S)
    others = [o for o in outcomes if o.visit.tenant in names[:-1] and WARM_S <= o.came < END_S - 5.0]
    shares = []
    for name in names[:-1]:
        own = [o for o in others if o.visit.tenant == name]
        shares.append(sum(_tokens(o.visit) for o in own if o.was_served) / sum(_tokens(o.visit) for o in own))
    served = tuple(o.first_token_s for o in others if o.was_served)
    return NoisyRun(served, sum(bool(o.told) for o in others), len(others), jain(shares))


def rivals(per_s: float, seed: int) -> float:
    """Jain's index of what ten tenants get who want from a fifth of the capacity to twice all of it."""
    names = tenants("rival", 10)
    sources = tuple(Source(Tier.FREE, 2.0 * per_s * (1 + index) / 10, (name,)) for index, name in enumerate(names))
    outcomes = Simulation(figures(), REPLICAS, WaitingRoom(RULES), seed).run(visits(sources, END_S, seed), END_S)
    begun = [o for o in outcomes if WARM_S <= o.started < END_S]
    return jain([sum(o.visit.prompt_tokens + 2 * o.output_tokens for o in begun if o.visit.tenant == name) for name in names])


def launch(apps: int, seed: int) -> LaunchRun:
    """All users within a minute to a fleet for few of them, all of whom come again when told. Ends when the last is served."""
    random, source = Random(seed), Source(Tier.FREE, 0.0, tenants("app", apps))  # noqa: S311
    times = sorted(random.uniform(0.0, RUSH_S) for _ in range(USERS))
    coming = [
        visit(at, random.choice(source.tenants), source, random, caller=f"user-{number}", comes_again=True)
        for number, at in enumerate(times)
    ]
    engine = replace(figures().scaled(0.4), max_num_seqs=USERS_AT_ONCE // 4)
    simulation = Simulation(engine, 4, WaitingRoom(RULES), seed)
    outcomes = simulation.run(coming, math.inf)
    told = [outcome for outcome in outcomes if outcome.told]
    errors = [(o.first - o.told[-1][0] - o.told[-1][1], o.told[-1][1]) for o in told if o.was_served]
    return LaunchRun(
        users=len(outcomes),
        served=sum(outcome.was_served for outcome in outcomes),
        at_once=sum(not outcome.told for outcome in outcomes),
        told=len(told),
        most_told=max((len(outcome.told) for outcome in told), default=0),
        told_errors=tuple(errors),
        took_s=simulation.now,
    )


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else math.nan


def jain(values: Sequence[float]) -> float:
    return math.fsum(values) ** 2 / (len(values) * math.fsum(value * value for value in values))


def _tokens(visit: Visit) -> int:
    return visit.prompt_tokens + visit.output_tokens


def settled_after_s(steps: Sequence[tuple[float, float]]) -> float:
    """From the step until the 99th percentile of no half second any more is beyond the target."""
    windows = {int(at / STEP_WINDOW_S) for at, _ in steps}
    settled = 0.0
    for index in sorted(windows):
        if percentile([first_s for at, first_s in steps if int(at / STEP_WINDOW_S) == index], 0.99) > PAID_TARGET_S:
            settled = (index + 1) * STEP_WINDOW_S
    return settled


def was_true(error_s: float, told_s: float) -> bool:
    """Within 20 %, or within the second to which the header is rounded."""
    return abs(error_s) <= max(0.2 * told_s, 1.0)
