"""Ray's signature around the policy: never waits, never raises, and keeps the fleet as it is while the gateway is not there."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.serve.config import AutoscalingContext

from serving.app import build_app
from serving.autoscaling.ray_policy import DemandPolicy
from serving.settings import ServingSettings
from serving.spec import read_spec

CAPACITY = {"tokens_per_s": 1000.0, "cold_start_s": 10.0}
TIER = {"waiting": 0, "waiting_tokens": 0, "running": 1, "running_tokens": 100}


def context(target: int, least: int = 0, most: int = 8) -> AutoscalingContext:
    figures = SimpleNamespace(
        target_num_replicas=target, capacity_adjusted_min_replicas=least, capacity_adjusted_max_replicas=most
    )
    return cast(AutoscalingContext, figures)


def said(tokens_per_s: float) -> bytes:
    model = {
        "tiers": {"paid": TIER},
        "replicas": {"ready": 1, "starting": 0},
        "arrivals_per_s": 10.0,
        "arrival_tokens_per_s": tokens_per_s,
        "drain_tokens_per_s": tokens_per_s,
        "rejections_per_s": 0.0,
        "promised": 0,
    }
    return json.dumps({"models": {"demo": model}}).encode()


@contextmanager
def gateway(answer: bytes, delay_s: float = 0.0) -> Iterator[str]:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(delay_s)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/internal/demand"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def policy(url: str) -> DemandPolicy:
    return DemandPolicy(model="demo", demand_url=url, capacity=CAPACITY, bounds={})


def asked_until(made: DemandPolicy, replicas: int, target: int) -> str:
    """The reason of the first decision for so many."""
    until = time.monotonic() + 10
    while True:
        decided, state = made(context(target))
        if decided == replicas:
            return str(state["reason"])
        assert time.monotonic() < until, (decided, state)
        time.sleep(0.02)


def test_what_the_gateway_is_asked_becomes_replicas() -> None:
    with gateway(said(3500.0)) as url:
        assert "work for 4.38 replicas" in asked_until(policy(url), 5, target=1)


def test_gateway_that_is_not_there_leaves_all_as_it_is() -> None:
    made = policy("http://127.0.0.1:9/internal/demand")
    assert [made(context(target))[0] for target in (1, 3, 3)] == [1, 3, 3]


@pytest.mark.parametrize("answer", [b"", b"<html>", b'{"models": {}}', b'{"models": {"demo": 3}}'])
def test_gateway_that_talks_nonsense_leaves_all_as_it_is(answer: bytes) -> None:
    with gateway(answer) as url:
        made, until = policy(url), time.monotonic() + 0.3
        while time.monotonic() < until:
            assert made(context(3))[0] == 3
            time.sleep(0.02)


def test_slow_gateway_never_holds_up_the_controller() -> None:
    with gateway(said(3500.0), delay_s=1.0) as url:
        made = policy(url)
        began = time.monotonic()
        for _ in range(100):
            made(context(2))
        assert time.monotonic() - began < 0.9


def test_model_that_may_be_scaled_gets_our_policy_and_no_delays() -> None:
    settings = ServingSettings.model_validate({"autoscaling": {"enabled": True, "demand_url": "http://127.0.0.1:1/"}})
    config = build_app(read_spec("daemun-demo"), settings)._bound_deployment._deployment_config.autoscaling_config
    assert config is not None
    assert (config.min_replicas, config.initial_replicas, config.max_replicas) == (1, 1, 4)
    assert config.upscale_delay_s == config.downscale_delay_s == config.downscale_to_zero_delay_s == 0
    assert config.policy.policy_kwargs["model"] == "daemun-demo"


def test_without_autoscaling_the_number_is_fixed() -> None:
    config = build_app(read_spec("daemun-demo"), ServingSettings())._bound_deployment._deployment_config
    assert (config.autoscaling_config, config.num_replicas) == (None, 1)


def test_autoscaling_needs_a_gateway_to_ask() -> None:
    with pytest.raises(ValueError, match="demand_url"):
        build_app(read_spec("daemun-demo"), ServingSettings.model_validate({"autoscaling": {"enabled": True}}))
