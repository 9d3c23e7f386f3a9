"""Every policy through every scenario, with every seed, in the simulator: what each run came to."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial

from benchmarks.autoscale.aims import CAREFUL, OWN, RAY_DEFAULT, Score
from benchmarks.autoscale.policies import Keda, KedaRules, Oracle
from benchmarks.autoscale.ray_default import RayDefault
from serving.simulator.autoscaler import MakeAutoscaler, OwnPolicy
from serving.simulator.crowd import visits
from serving.simulator.report.summary import summary
from serving.simulator.run import policy, simulate
from serving.simulator.scenario import Scenario

_ORACLE_USE, _ORACLE_WINDOW_S = 0.6, 30.0


def _own(scenario: Scenario, seed: int) -> MakeAutoscaler:
    return policy(scenario)


def _own_with(**bounds: float) -> Callable[[Scenario, int], MakeAutoscaler]:
    return partial(_fixed, partial(OwnPolicy, bounds=bounds))


def _ray(target: float) -> Callable[[Scenario, int], MakeAutoscaler]:
    return partial(_fixed, partial(RayDefault, target=target))


def _keda(rules: KedaRules) -> Callable[[Scenario, int], MakeAutoscaler]:
    return partial(_fixed, partial(Keda, rules=rules))


def _fixed(make: MakeAutoscaler, scenario: Scenario, seed: int) -> MakeAutoscaler:
    return make


def _oracle(scenario: Scenario, seed: int) -> MakeAutoscaler:
    arrivals = [(visit.at, float(visit.prompt_tokens + visit.output_tokens)) for visit in visits(scenario, seed)]
    return partial(Oracle, arrivals=arrivals, use=_ORACLE_USE, window_s=_ORACLE_WINDOW_S)


# daemun plans with four fifths of a replica's speed where nobody says otherwise; the careful one has more room for bursts.
# Serve's target is 2 calls a replica where nobody says otherwise. A replica here takes dozens at once, so there are two targets
# more, which an operator who has measured the engine would set. KEDA's five waiting calls are what vLLM's production stack sets.
POLICIES: dict[str, Callable[[Scenario, int], MakeAutoscaler]] = {
    OWN: _own,
    CAREFUL: _own_with(use=0.6),
    RAY_DEFAULT: _ray(2.0),
    "ray, 24 calls": _ray(24.0),
    "ray, 48 calls": _ray(48.0),
    "keda, 5 waiting": _keda(KedaRules(5.0)),
    "keda, 32 in all": _keda(KedaRules(32.0, with_running=True)),
    "oracle": _oracle,
}


def play(scenario: Scenario, policy_name: str, seed: int) -> Score:
    """One run."""
    figures = summary(simulate(scenario, seed, POLICIES[policy_name](scenario, seed))).total
    calls = figures.calls
    return Score(
        scenario=scenario.name,
        policy=policy_name,
        seed=seed,
        minutes=calls.minutes,
        outside=calls.outside,
        gpu_hours=figures.fleet.gpu_hours,
        calls=calls.came,
        in_time=calls.in_time,
        first_token_p99_s=calls.first_token_s[2],
    )


def contest(scenarios: Sequence[Scenario], seeds: Sequence[int], processes: int) -> Iterator[Score]:
    """As the runs end, in any order."""
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawning) as pool:
        # Those that take longest begin first.
        longest = sorted(scenarios, key=lambda scenario: -scenario.duration_s)
        runs = [pool.submit(play, scenario, name, seed) for scenario in longest for name in POLICIES for seed in seeds]
        yield from (run.result() for run in as_completed(runs))
