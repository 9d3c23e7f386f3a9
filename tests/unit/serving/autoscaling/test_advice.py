"""The policy's number for other autoscalers, as a figure and over HTTP."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.autoscaling.advice import Advice, Adviser, as_json, prometheus_text
from serving.autoscaling.demand import Demand
from serving.autoscaling.exporter import Exporter
from serving.autoscaling.policy import Bounds, Capacity
from tests.unit.serving.autoscaling.test_ray_policy import gateway, said

CAPACITY, BOUNDS = Capacity(tokens_per_s=1000.0, cold_start_s=10.0), Bounds(least=0, most=8)


def adviser() -> Adviser:
    return Adviser("demo", CAPACITY, BOUNDS)


def busy(at: float, tokens_per_s: float = 3000.0) -> Demand:
    return Demand(at=at, arrival_tokens_per_s=tokens_per_s, drain_tokens_per_s=1000.0, running=5, ready=1)


def test_advice_is_the_policys_number_with_its_reason() -> None:
    one = adviser()
    one.hear(busy(100.0), 100.0)
    assert one.advice is not None
    assert (one.advice.model, one.advice.current) == ("demo", 1)
    assert 4 <= one.advice.desired <= 8
    assert one.advice.wanted == pytest.approx(3000.0 / 800.0, rel=0.2)
    assert str(one.advice.desired) in one.advice.reason


def test_there_is_none_before_and_after_there_is_a_signal() -> None:
    one = adviser()
    assert one.advice is None
    one.hear(None, 1.0)
    assert one.advice is None
    one.hear(busy(2.0), 2.0)
    assert one.advice is not None
    one.hear(busy(2.0), 2.0 + BOUNDS.stale_s)
    assert one.advice is not None
    one.hear(busy(2.0), 2.1 + BOUNDS.stale_s)
    assert one.advice is None


def test_prometheus_reads_the_figures() -> None:
    advice = [Advice("demo", 3, 1, 2.5, "why"), Advice('we"ird\\', 0, 0, 0.0, "why")]
    read = {
        (sample.name, sample.labels["model"]): sample.value
        for family in text_string_to_metric_families(prometheus_text(advice))
        for sample in family.samples
    }
    assert read == {
        ("daemun_desired_replicas", "demo"): 3.0,
        ("daemun_current_replicas", "demo"): 1.0,
        ("daemun_wanted_replicas", "demo"): 2.5,
        ("daemun_desired_replicas", 'we"ird\\'): 0.0,
        ("daemun_current_replicas", 'we"ird\\'): 0.0,
        ("daemun_wanted_replicas", 'we"ird\\'): 0.0,
    }


def test_json_is_for_keda_and_for_people() -> None:
    told = json.loads(as_json(Advice("demo", 3, 1, 2.5, "3: work for 2.5 replicas")))
    assert told == {
        "model": "demo",
        "desired_replicas": 3,
        "current_replicas": 1,
        "wanted_replicas": 2.5,
        "reason": "3: work for 2.5 replicas",
    }


@contextmanager
def exporter(demand_url: str) -> Iterator[str]:
    with Exporter("127.0.0.1", 0, demand_url, {"demo": adviser()}) as running:
        yield f"http://127.0.0.1:{running.port}"


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as problem:
        with problem:
            return problem.code, problem.read().decode()


def test_number_of_a_gateway_that_answers_is_served() -> None:
    with gateway(said(3000.0)) as demand_url, exporter(demand_url) as url:
        until = time.monotonic() + 20
        while get(f"{url}/desired/demo")[0] != 200:
            assert time.monotonic() < until
            time.sleep(0.1)
        told = json.loads(get(f"{url}/desired/demo")[1])
        assert told["desired_replicas"] > told["current_replicas"] == 1
        assert 'daemun_desired_replicas{model="demo"} ' in get(f"{url}/metrics")[1]


def test_gateway_that_is_not_there_leaves_the_fleet_as_it_is() -> None:
    with exporter("http://127.0.0.1:9/internal/demand") as url:
        assert get(f"{url}/desired/demo")[0] == 503
        assert "{" not in get(f"{url}/metrics")[1]
        assert get(f"{url}/desired/other")[0] == 404
        assert get(f"{url}/elsewhere")[0] == 404
        assert get(f"{url}/health/live") == (200, "{}")
