"""What is asked of the models, as Prometheus reads it: the figures of `/internal/demand`, for the same clients."""

from __future__ import annotations

import asyncio
import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.policy.demand import Step
from tests.fakes import STAYS, FakeClient, Script
from tests.unit.gateway.house import MODEL, House
from tests.unit.gateway.routes.test_inference import CHAT, STREAM, answers

Figures = dict[tuple[str, ...], float]


async def figures(house: House) -> Figures:
    answer = await house.stranger.request("GET", "/internal/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


async def test_every_step_of_overload_is_a_figure() -> None:
    house = House(Script(head="hangs"), places=1, most_waiting=16)
    calls = []
    for key, patience_s in (("anna", "30"), ("chan", "30"), ("chan", "0")):  # one runs, one waits, one is rejected
        headers = {"authorization": f"Bearer dm-{key}", "x_daemun_max_wait_s": patience_s}
        calls.append(asyncio.create_task(house.client.post(CHAT, STREAM, STAYS, **headers)))
        await asyncio.sleep(0.1)
    seen = await figures(house)
    assert (seen["daemun_running_calls", MODEL, "paid"], seen["daemun_waiting_calls", MODEL, "free"]) == (1, 1)
    assert seen["daemun_running_tokens", MODEL, "paid"] == seen["daemun_waiting_tokens", MODEL, "free"] == 256
    assert {step: seen["daemun_overload_step", MODEL, step.value] for step in Step} == {
        step: float(step is Step.REJECTING) for step in Step
    }
    assert (seen["daemun_calls_total", MODEL, "at_once"], seen["daemun_calls_total", MODEL, "rejected"]) == (1, 1)
    assert seen["daemun_replicas", MODEL, "ready"] == 2
    assert seen["daemun_arrivals_per_second", MODEL] > 0
    await asyncio.gather(*calls)


async def test_figures_are_those_of_the_demand() -> None:
    house = House(answers())
    house.fleet.now_starting["other-model"] = 2
    shown = json.loads((await house.stranger.request("GET", "/internal/demand")).body)
    seen = await figures(house)
    assert seen["daemun_gateway_workers",] == shown["workers"]["count"]
    for model, told in shown["models"].items():
        assert seen["daemun_places", model] == told["places"]
        assert seen["daemun_expected_wait_seconds", model] == told["expected_wait_s"]
        assert seen["daemun_replicas", model, "starting"] == told["replicas"]["starting"]
        assert {outcome: seen["daemun_calls_total", model, outcome] for outcome in told["calls"]} == told["calls"]


async def test_who_comes_by_a_proxy_or_from_elsewhere_is_shown_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(answers())
    assert (await house.stranger.request("GET", "/internal/metrics", x_forwarded_for="203.0.113.9")).status == 404
    at_home = FakeClient._scope
    monkeypatch.setattr(FakeClient, "_scope", lambda *given: at_home(*given) | {"client": ("203.0.113.9", 50000)})
    assert (await house.stranger.request("GET", "/internal/metrics")).status == 404
