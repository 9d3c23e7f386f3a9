"""What a client is told when something is wrong, by a real gateway in front of a real engine."""

import json

import httpx
import openai
import pytest

from tests.e2e.stack import MODEL, Stack


def ask(daemun: Stack, body: bytes, key: str | None = None, language: str = "en") -> httpx.Response:
    headers = {"Authorization": f"Bearer {key or daemun.key}", "Accept-Language": language, "Content-Type": "application/json"}
    return httpx.post(f"{daemun.url}/v1/chat/completions", content=body, headers=headers)


def test_a_wrong_key_is_refused_in_the_clients_language(daemun: Stack) -> None:
    english, korean = (ask(daemun, b"{}", key="dm-wrong", language=language) for language in ("en", "ko-KR,ko;q=0.9,en;q=0.5"))
    assert (english.status_code, english.json()["error"]["code"]) == (401, "invalid_api_key")
    assert "daemun keys create" in english.json()["error"]["message"]
    assert "유효한 API 키가 없습니다" in korean.json()["error"]["message"]


def test_an_unknown_model_lists_the_known_ones(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "안녕"}])
    assert caught.value.code == "model_not_found"
    assert MODEL in caught.value.message


def test_malformed_json_is_a_400(daemun: Stack) -> None:
    answer = ask(daemun, b'{"model": "daemun-demo", "messages": [')
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


def test_what_the_engine_refuses_is_a_400_with_its_reason(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "안녕"}], max_tokens=100_000)
    assert caught.value.code == "invalid_request"
    assert "max_tokens" in caught.value.message


def test_a_refused_call_leaves_an_entry_without_tokens(daemun: Stack, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="gpt-4", prompt="안녕")
    entry = daemun.entry(caught.value.response.headers["x-request-id"])
    assert (entry["outcome"], entry["error_code"], entry["status"]) == ("rejected", "model_not_found", 404)
    assert (entry["prompt_tokens"], entry["completion_tokens"]) == (0, 0)


def test_an_error_that_quotes_a_hostile_value_holds_nobody_up(daemun: Stack) -> None:
    """vLLM looks for paths in its messages with a pattern that 16 kB of slashes would keep busy for two minutes."""
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "안녕"}], "temperature": "/a" * 8000})
    answer = ask(daemun, body.encode())
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "temperature")
