"""The visits of a scenario: who comes when, for what. The same scenario and seed, the same visits, in their order."""

from __future__ import annotations

import heapq
import math
from bisect import bisect
from collections.abc import Iterator, Sequence
from itertools import accumulate
from random import Random

from engines import figures as engine_figures
from gateway.policy.limits import Tier
from serving.simulator import arrivals
from serving.simulator.parts import ModelSpec, TenantSpec
from serving.simulator.scenario import Scenario
from serving.simulator.sizes import Independent, Lognormal
from serving.simulator.traces import read_trace
from serving.simulator.traffic import Day, Gamma, Poisson, Surge, TokensSpec, Trace, Traffic
from serving.simulator.visit import Visit

_Call = tuple[float, int, int]  # when; tokens of prompt and answer


def visits(scenario: Scenario, seed: int | None = None) -> Iterator[Visit]:
    """In the order of time, until the end of the run. Raises UnreadableTrace, before the first."""
    used = scenario.seed if seed is None else seed
    sources = [_Crowd(scenario, source, f"{used}/traffic/{number}") for number, source in enumerate(scenario.traffic)]
    return heapq.merge(*sources, key=lambda visit: visit.at)


class _Crowd:
    """All who come by one source. What one source is like does not change what another one brings."""

    def __init__(self, scenario: Scenario, source: Traffic, seed: str) -> None:
        self._source = source
        self._random, self._whos = Random(seed), Random(f"{seed}/who")  # noqa: S311 - a simulation
        self._model = _model_of(scenario, source)
        self._longest = engine_figures.load(self._model.engine).max_model_len
        self._until = min(scenario.duration_s, source.end_s if source.end_s is not None else math.inf)
        self._clock_s = scenario.clock_s
        self._people = _People(scenario, source.tenants)
        self._trace = read_trace(source.path) if isinstance(source, Trace) else ()

    def __iter__(self) -> Iterator[Visit]:
        come_again = isinstance(self._source, Surge)
        expected = self._expected_tokens()
        for number, (at, prompt, output) in enumerate(self._calls()):
            name, tenant, target_s = self._people.draw(self._whos)
            prompt = min(prompt, self._longest - 1)
            yield Visit(
                at,
                name,
                tenant.tier,
                self._model.name,
                prompt,
                min(output, self._longest - prompt),
                expected,
                target_s,
                tenant.patience_s,
                tenant.weight,
                tenant.comes_again or come_again,
                f"{name}/{number}" if tenant.comes_again or come_again else "",
            )

    def _expected_tokens(self) -> int:
        """What the gateway has learned: the mean of the answers."""
        if self._trace:
            return max(1, round(sum(call.output_tokens for call in self._trace) / len(self._trace)))
        return max(1, round(min(self._source.output_tokens.mean, self._longest)))

    def _calls(self) -> Iterator[_Call]:
        source, random = self._source, self._random
        if isinstance(source, Trace):
            for at, call in arrivals.replay(self._trace, random, times=source.times, speed=source.speed):
                if source.begin_s + at >= self._until:
                    return
                yield source.begin_s + at, call.prompt_tokens, call.output_tokens
            return
        sizes = Independent(_law(source.prompt_tokens), _law(source.output_tokens))
        lengths = Random(random.getrandbits(64))  # noqa: S311
        for at in _times(source, self._until, self._clock_s, random):
            yield at, *sizes.draw(lengths)


class _People:
    """Tenants by their share, those of one group alike."""

    def __init__(self, scenario: Scenario, only: Sequence[str]) -> None:
        groups = [tenant for tenant in scenario.tenants if not only or tenant.name in only]
        self._who: list[tuple[str, TenantSpec, float]] = []
        for tenant in groups:
            target_s = tenant.target_first_token_s or scenario.target_first_token_s
            self._who += [(name, tenant, target_s) for name in tenant.names]
        self._shares = list(accumulate(tenant.share / tenant.count for _, tenant, _ in self._who))

    def draw(self, random: Random) -> tuple[str, TenantSpec, float]:
        shares = self._shares
        return self._who[bisect(shares, random.random() * shares[-1], 0, len(shares) - 1)]


def tiers(scenario: Scenario) -> dict[str, Tier]:
    """Of each tenant by its name."""
    return {name: tenant.tier for tenant in scenario.tenants for name in tenant.names}


def _model_of(scenario: Scenario, source: Traffic) -> ModelSpec:
    return next(model for model in scenario.models if model.name == (source.model or scenario.models[0].name))


def _times(source: Poisson | Gamma | Day | Surge, until: float, clock_s: float, random: Random) -> Iterator[float]:
    begin = source.begin_s
    if isinstance(source, Poisson):
        return arrivals.poisson(source.per_s, until, random, begin)
    if isinstance(source, Gamma):
        return arrivals.gamma(source.per_s, source.variation, until, random, begin)
    if isinstance(source, Day):
        rate, most = arrivals.korean_day(source.per_s, clock_s), arrivals.korean_peak(source.per_s)
        return arrivals.varying(rate, most, until, random, begin)
    return (at for at in arrivals.surge(source.users, source.within_s, random, begin) if at < until)


def _law(tokens: TokensSpec) -> Lognormal:
    return Lognormal(tokens.mean, tokens.spread, tokens.most, tokens.least)
