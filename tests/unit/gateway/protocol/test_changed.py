"""What is for the gateway alone is taken out of a request, and what the waiting room decides is put in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.protocol.endpoint import CHAT, COMPLETIONS, ENDPOINTS, MESSAGES, RESPONSES, Endpoint
from gateway.protocol.openai import changed, read


def request_for(endpoint: Endpoint, **fields: Any) -> Any:
    return read(json.dumps({"model": "m", **fields}).encode(), endpoint)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: str(endpoint.path))
@pytest.mark.parametrize(
    "spelt", [b'"service_tier":"flex","models":["a","b"]', b'"service\\u005ftier":"flex","mode\\u006cs":["a","b"]']
)
def test_what_is_for_the_gateway_does_not_reach_the_engine(endpoint: Endpoint, spelt: bytes) -> None:
    request = read(b'{"model":"m",' + spelt + b',"user":"u"}', endpoint)
    assert json.loads(request.body) == json.loads(request.own_body) == {"model": "m", "user": "u"}
    assert (request.models, request.service_tier) == (("a", "b"), "flex")


def test_stream_without_them_is_asked_for_its_counts_all_the_same() -> None:
    request = request_for(CHAT, messages=[], stream=True, models=["a"], service_tier="auto")
    assert json.loads(request.body)["stream_options"]["include_usage"] is True
    assert request.plan is not None
    assert json.loads(request.own_body) == {"model": "m", "messages": [], "stream": True}


def test_another_model_is_in_the_body_and_in_what_would_go_on_elsewhere() -> None:
    other = changed(request_for(CHAT, messages=[], stream=True, models=["a"], service_tier="flex"), model="a")
    assert (other.model, json.loads(other.body)["model"]) == ("a", "a")
    assert other.plan is not None
    assert bytes(other.plan.copied["model"]) == b'"a"'
    assert (other.models, other.service_tier) == (("a",), "flex")


@pytest.mark.parametrize(
    ("endpoint", "given", "sent"),
    [
        (CHAT, {}, {"max_tokens": 64}),
        (CHAT, {"max_tokens": 100}, {"max_tokens": 64}),
        (CHAT, {"max_tokens": None}, {"max_tokens": 64}),
        (CHAT, {"max_completion_tokens": 100}, {"max_completion_tokens": 64}),
        (CHAT, {"max_completion_tokens": 100, "max_tokens": 80}, {"max_completion_tokens": 64, "max_tokens": 80}),
        (CHAT, {"max_tokens": 100, "min_tokens": 90}, {"max_tokens": 64, "min_tokens": 64}),
        (COMPLETIONS, {"max_tokens": 100, "min_tokens": 9}, {"max_tokens": 64, "min_tokens": 9}),
        (RESPONSES, {}, {"max_output_tokens": 64}),
        (MESSAGES, {"max_tokens": 100}, {"max_tokens": 64}),
    ],
)
def test_allowance_is_lowered_where_the_api_says_it(endpoint: Endpoint, given: dict[str, Any], sent: dict[str, Any]) -> None:
    other = changed(request_for(endpoint, **given), most_tokens=64)
    assert json.loads(other.body) == {"model": "m", **sent}
    assert other.max_tokens == 64


def test_tier_is_put_in_for_engines_that_repeat_it() -> None:
    other = changed(request_for(RESPONSES, service_tier="batch"), service_tier="flex")
    assert json.loads(other.body) == {"model": "m", "service_tier": "flex"}
