"""Limits as the official client meets them."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.integration.gateway.conftest import MODEL, Running

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "안녕?"}]


@pytest.fixture
def limits() -> dict[str, int]:
    """Of a day: no window of these turns within the test, but at midnight in Korea."""
    return {"requests_per_day": 2, "tokens_per_day": 5000}


@pytest.fixture
def client(running: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=running.key, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("stream", [False, True])
def test_client_sees_how_its_limits_stand(client: openai.OpenAI, stream: bool) -> None:
    answer = client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES, stream=stream)
    assert answer.headers["x-ratelimit-limit-requests"] == "2"
    assert answer.headers["x-ratelimit-remaining-requests"] == "1"
    assert answer.headers["x-ratelimit-reset-requests"].endswith("s")
    assert answer.headers["x-ratelimit-limit-tokens"] == "5000"
    assert 0 < int(answer.headers["x-ratelimit-remaining-tokens"]) < 5000
    if stream:
        for _ in answer.parse():
            pass


def test_client_raises_its_rate_limit_error(running: Running, client: openai.OpenAI) -> None:
    for _ in range(2):
        client.chat.completions.create(model=MODEL, messages=MESSAGES)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model=MODEL, messages=MESSAGES)
    headers = caught.value.response.headers
    assert caught.value.code == "rate_limit_exceeded"
    assert 0 < int(headers["retry-after"]) <= 86_401
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert "tenant's limit of 2 requests a day" in caught.value.message
    assert running.entries(3)[0].error_code == "rate_limit_exceeded"


def test_requests_that_the_engine_refuses_are_given_back(running: Running, client: openai.OpenAI) -> None:
    running.engine.script = None
    for _ in range(5):
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="gpt-9", messages=MESSAGES)
    answer = client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES)
    assert answer.headers["x-ratelimit-remaining-requests"] == "1"
