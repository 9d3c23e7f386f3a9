"""How many replicas should this model have? Facts and the time in, a number with its reason out. Pure.

In tokens, not in calls: what arrives, as forecast for when a replica that is started now would be ready, and what waits, against
what one replica was measured to do.

- Up at once, and as far as needed. What waits asks for more replicas only as far as those there are will not have worked it off
  before new ones could help.
- Down only to the most that was wanted in the last `hold_s`: a flapping demand makes a steady fleet. A replica that could be
  spared only just, stays (`slack`). Who has just begun takes it that the replicas there are were wanted until now.
- From zero as soon as anybody asks; to zero after `idle_s` without anything, unless this time of the day brings calls.
- Where the signal is old, missing or of another time, everything stays as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from serving.autoscaling.demand import Demand
from serving.autoscaling.forecast import Forecast

_RATE_MEMORY_S = 120.0  # of what a replica was measured to do
_USUAL = 0.01  # of a replica's speed: what is less is the memory of calls that came some time ago
_BUSY = 0.9  # of the target use, from which on what a fleet does is what it can
_FILLING_S = 60.0  # longer than most answers take: until then a fleet that is full has ended fewer calls than it can


@dataclass(frozen=True, slots=True)
class Capacity:
    """Of one replica. tokens_per_s: prompt and output together, with answers in time. cold_start_s: from decision to ready."""

    tokens_per_s: float
    cold_start_s: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """least, most   replicas
    use           of a replica's speed that is planned with: the rest is for what comes in bursts
    spreads       standard deviations of the forecast's error that are added to it
    clear_s       within which what waits should be worked off, once replicas are ready
    hold_s        for which a replica stays wanted
    slack         of a replica's speed by which it must be superfluous before it goes
    idle_s        without anything, before the last replica goes (where `least` is 0)
    stale_s       age of a signal that is not believed any more
    """

    least: int = 1
    most: int = 1
    use: float = 0.8
    spreads: float = 1.0
    clear_s: float = 20.0
    hold_s: float = 120.0
    slack: float = 0.1
    idle_s: float = 300.0
    stale_s: float = 15.0

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most:
            raise ValueError(f"replicas need 0 <= least <= most, not {self.least} and {self.most}")
        if not 0.0 < self.use <= 1.0:
            raise ValueError(f"use must be above 0 and at most 1, not {self.use}")


@dataclass(frozen=True, slots=True)
class State:
    """What the policy remembers from one decision to the next; begin with `State()`."""

    forecast: Forecast | None = None
    wanted: tuple[tuple[float, int], ...] = ()  # when, how many; falling, so that the first is the most
    last_at: float = -math.inf  # of the last signal that was believed
    active_at: float | None = None
    promised: int = 0
    call_tokens: float = 0.0  # of one who was promised a time, lately
    tokens_per_s: float | None = None  # of a replica, as measured
    full: tuple[float, int] | None = None  # since when calls wait for as many ready replicas without a break


@dataclass(frozen=True, slots=True)
class Decision:
    """`reason`: a sentence for operators. `wanted`: before bounds and hold, in replicas and parts of them."""

    replicas: int
    reason: str
    state: State
    wanted: float = 0.0


def desired_replicas(
    demand: Demand | None, capacity: Capacity, bounds: Bounds, state: State, *, current: int, now: float
) -> Decision:
    """`current`: the replicas that are there or on their way. `demand` None: the gateway could not be asked."""
    problem = _problem(demand, bounds, state, now)
    if problem or demand is None:
        kept = min(max(current, bounds.least), bounds.most)
        return Decision(kept, f"stays at {kept}: {problem}", state, float(current))
    before = state.wanted if state.forecast is not None else ((now, current),)
    state = _seen(state, demand, capacity)
    forecast, speed = state.forecast or Forecast(capacity.cold_start_s), state.tokens_per_s or capacity.tokens_per_s
    flow = forecast.at_most(now, bounds.spreads)
    steady = flow / (speed * bounds.use)
    backlog = _left_when_ready(demand, current, speed, forecast, capacity.cold_start_s)
    wanted = steady + backlog / (speed * bounds.clear_s)
    target, reason = _rounded(wanted, current, bounds)
    if demand.is_idle and demand.arrival_tokens_per_s <= _USUAL * speed:
        target, reason = _idle(target, state, bounds, forecast.usual(now) > _USUAL * speed, current, now)
    elif target == 0:
        target, reason = 1, "1: somebody asks"
    recent = _remember(before, target, now, bounds.hold_s)
    held = max(recent[0][1], target)
    if target < held <= current:
        reason = f"{held} for now: so many were wanted less than {bounds.hold_s:g} s ago, now {target}"
    elif held > target:
        reason = f"{held}: so many were wanted less than {bounds.hold_s:g} s ago, now {target}"
    final = min(max(held, bounds.least), bounds.most)
    if final != held:
        reason = f"{final}, the {'most' if held > final else 'least'} there may be, of {reason}"
    return Decision(final, reason, replace(state, wanted=recent), wanted)


def _problem(demand: Demand | None, bounds: Bounds, state: State, now: float) -> str:
    if demand is None:
        return "the gateway does not say what is asked"
    age_s = now - demand.at
    if age_s > bounds.stale_s:
        return f"what the gateway says is {age_s:.0f} s old"
    if age_s < -bounds.stale_s:
        return f"what the gateway says is {-age_s:.0f} s ahead of this clock"
    if demand.at < state.last_at:
        return "what the gateway says is older than what it said before"
    return ""


def _seen(state: State, demand: Demand, capacity: Capacity) -> State:
    """The state with this signal in it."""
    forecast = state.forecast or Forecast(capacity.cold_start_s)
    passed = demand.at - state.last_at
    if passed <= 0.0:
        return state
    # Who was turned away comes again: a new caller is one who gets in or adds to those who were told to come later.
    # It is their number that changes: what a call has on average differs from second to second, and they do not with it.
    call_tokens = demand.promised_tokens / demand.promised if demand.promised else state.call_tokens
    told = (demand.promised - state.promised) * call_tokens / passed
    offered = max(0.0, demand.arrival_tokens_per_s + told)
    # A replica that is not ready yet has not been idle.
    is_active = not demand.is_idle or demand.arrival_tokens_per_s > _USUAL * capacity.tokens_per_s or not demand.ready
    full = _full(state.full, demand)
    return replace(
        state,
        forecast=forecast.observe(offered, demand.at),
        last_at=demand.at,
        active_at=demand.at if is_active or state.active_at is None else state.active_at,
        promised=demand.promised,
        call_tokens=call_tokens,
        tokens_per_s=_measured(state.tokens_per_s, full, demand, capacity, passed),
        full=full,
    )


def _full(full: tuple[float, int] | None, demand: Demand) -> tuple[float, int] | None:
    """Since when the fleet has been as it is, and full."""
    if demand.waiting_tokens <= 0.0:
        return None
    return full if full is not None and full[1] == demand.ready else (demand.at, demand.ready)


def _measured(
    known: float | None, full: tuple[float, int] | None, demand: Demand, capacity: Capacity, passed: float
) -> float | None:
    """What one replica does, learned while all are busy: calls have waited for them so long that as many end as can."""
    if not demand.ready or demand.drain_tokens_per_s <= 0.0 or full is None or demand.at - full[0] < _FILLING_S:
        return known
    seen = demand.drain_tokens_per_s / demand.ready
    was = known if known is not None else capacity.tokens_per_s
    if seen < _BUSY * was and demand.waiting_tokens < was:  # a short queue of a fleet that is not full yet
        return known
    news = -math.expm1(-min(passed, _RATE_MEMORY_S) / _RATE_MEMORY_S)
    # A figure that is far off is a mistake of measuring rather than a change.
    return was + news * (min(4.0 * capacity.tokens_per_s, max(capacity.tokens_per_s / 4.0, seen)) - was)


def _left_when_ready(demand: Demand, current: int, speed: float, forecast: Forecast, cold_start_s: float) -> float:
    """Tokens that would still wait when replicas that are started now are ready."""
    if not demand.waiting_tokens:  # who was told a time comes then, and finds room: there is some now
        return 0.0
    waits = demand.waiting_tokens + demand.promised_tokens
    spare = (min(current, demand.ready + demand.starting) or current) * speed - forecast.level
    return max(0.0, waits - max(0.0, spare) * cold_start_s)


def _rounded(wanted: float, current: int, bounds: Bounds) -> tuple[int, str]:
    """Whole replicas: up where they are needed, down only where there is slack."""
    up, down = math.ceil(wanted - 1e-9), math.ceil(wanted + bounds.slack - 1e-9)
    if up > current:
        return up, f"{up}: work for {wanted:.2f} replicas"
    if down < current:
        return down, f"{down}: work for {wanted:.2f} replicas"
    return current, f"stays at {current}: work for {wanted:.2f} replicas"


def _idle(target: int, state: State, bounds: Bounds, is_usual: bool, current: int, now: float) -> tuple[int, str]:
    """Nobody asks: the last replica goes when that has lasted, and the time of the day promises nothing."""
    since = now - (state.active_at if state.active_at is not None else now)
    if is_usual:
        return max(1, target), f"{max(1, target)}: calls usually come at this time of the day"
    if current == 0:
        return 0, "0: nobody asks"
    if since < bounds.idle_s:
        return max(1, target), f"{max(1, target)}: idle for {since:.0f} s of {bounds.idle_s:g}"
    return 0, f"0: idle for {since:.0f} s"


def _remember(wanted: tuple[tuple[float, int], ...], target: int, now: float, hold_s: float) -> tuple[tuple[float, int], ...]:
    """What was wanted within `hold_s`, without what a later and higher wish makes superfluous."""
    kept = [(at, count) for at, count in wanted if now - at < hold_s and count > target]
    return (*kept, (now, target))
