"""GET /internal/metrics: what `/internal/demand` shows, for Prometheus. For operators, like that one.

Labels are bounded: a model's name, a tier, a state, a step, an outcome; no tenant, no key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from gateway.policy.demand import Step
from gateway.ports import Clock, DemandSource
from gateway.routes.demand import check_near, shown

_TIERS = {
    "daemun_waiting_calls": ("waiting", "Calls in the waiting room."),
    "daemun_waiting_tokens": ("waiting_tokens", "Their tokens, prompt and output, estimated."),
    "daemun_running_calls": ("running", "Calls that have a place."),
    "daemun_running_tokens": ("running_tokens", "Their tokens, prompt and output, estimated."),
}
_MODELS = {
    "daemun_places": ("places", "Calls that the ready replicas take at once."),
    "daemun_kv_tokens": ("kv_tokens", "Tokens that their KV caches hold; 0 where that is not known."),
    "daemun_arrivals_per_second": ("arrivals_per_s", "Calls that come, of the last seconds; rejected ones count."),
    "daemun_arrival_tokens_per_second": ("arrival_tokens_per_s", "Their tokens, estimated."),
    "daemun_drain_per_second": ("drain_per_s", "Calls that end, of the last seconds."),
    "daemun_drain_tokens_per_second": ("drain_tokens_per_s", "Their tokens, as the engines counted them."),
    "daemun_rejections_per_second": ("rejections_per_s", "Calls that are turned away, of the last seconds."),
    "daemun_expected_wait_seconds": ("expected_wait_s", "What a free call that comes now would wait."),
    "daemun_promised_callers": ("promised", "Callers who were told when to come again and have not yet."),
}


def router(source: DemandSource, clock: Clock, *, loopback_only: bool = True) -> APIRouter:
    """`loopback_only`: see `gateway.routes.demand`."""
    made = APIRouter(include_in_schema=False)

    @made.get("/internal/metrics")
    async def metrics(request: Request) -> Response:
        check_near(request, loopback_only=loopback_only)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Shown(await shown(source, clock)))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return made


class _Shown(Collector):
    """One moment's figures."""

    def __init__(self, shown: Mapping[str, Any]) -> None:
        self._shown = shown

    def collect(self) -> Iterator[Metric]:
        models: Mapping[str, Any] = self._shown["models"]
        workers = GaugeMetricFamily("daemun_gateway_workers", "Gateway processes of this machine that were heard of.")
        workers.add_metric([], self._shown["workers"]["count"])
        yield workers
        for name, (figure, meaning) in _TIERS.items():
            family = GaugeMetricFamily(name, meaning, labels=["model", "tier"])
            for model, told in models.items():
                for tier, figures in told["tiers"].items():
                    family.add_metric([model, tier], figures[figure])
            yield family
        for name, (figure, meaning) in _MODELS.items():
            family = GaugeMetricFamily(name, meaning, labels=["model"])
            for model, told in models.items():
                family.add_metric([model], told[figure])
            yield family
        yield from _by_word(models)


def _by_word(models: Mapping[str, Any]) -> Iterator[Metric]:
    replicas = GaugeMetricFamily("daemun_replicas", "Replicas, ready or starting.", labels=["model", "state"])
    steps = GaugeMetricFamily(
        "daemun_overload_step", "1 for the step of the overload ladder, 0 for others.", labels=["model", "step"]
    )
    calls = CounterMetricFamily("daemun_calls", "What became of calls since the gateway began.", labels=["model", "outcome"])
    for model, told in models.items():
        for state, count in told["replicas"].items():
            replicas.add_metric([model, state], count)
        for step in Step:
            steps.add_metric([model, step.value], float(told["step"] == step.value))
        for outcome, count in told["calls"].items():
            calls.add_metric([model, outcome], count)
    yield from (replicas, steps, calls)
