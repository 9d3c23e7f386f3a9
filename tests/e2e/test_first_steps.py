"""What a newcomer does first: the printed lines, as printed."""

import json
import re
import subprocess
import sys

import openai

from tests.e2e.stack import MODEL, Stack

HANGUL = re.compile("[가-힣]{2}")


def test_the_printed_curl_line_answers_in_korean(daemun: Stack) -> None:
    line = daemun.printed(r"^(curl .+?)$")
    answered = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    body = json.loads(answered.stdout)
    assert HANGUL.search(body["choices"][0]["message"]["content"])


def test_the_printed_snippet_streams_korean(daemun: Stack) -> None:
    snippet = daemun.printed(r"^(from openai import OpenAI.+?flush=True\))$")
    ran = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, check=True)
    assert HANGUL.search(ran.stdout)


def test_a_whole_answer_and_a_stream_say_the_same_and_count_the_same(daemun: Stack, client: openai.OpenAI) -> None:
    question = [{"role": "user", "content": "GPU가 왜 부족해요?"}]
    whole = client.chat.completions.with_raw_response.create(model=MODEL, messages=question, temperature=0)  # type: ignore[arg-type]
    answer = whole.parse()
    stream = client.chat.completions.with_raw_response.create(model=MODEL, messages=question, temperature=0, stream=True)  # type: ignore[arg-type]
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream.parse()]  # type: ignore[union-attr]
    streamed = daemun.entry(stream.headers["x-request-id"])
    assert "".join(pieces) == answer.choices[0].message.content
    assert len(pieces) > 3
    counted = daemun.entry(whole.headers["x-request-id"])
    assert answer.usage is not None
    assert counted["completion_tokens"] == streamed["completion_tokens"] == answer.usage.completion_tokens
    assert counted["prompt_tokens"] == streamed["prompt_tokens"] == answer.usage.prompt_tokens
    assert (counted["outcome"], streamed["outcome"]) == ("completed", "completed")
    assert (counted["stream"], streamed["stream"]) == (0, 1)


def test_the_completions_endpoint_works_too(daemun: Stack, client: openai.OpenAI) -> None:
    answer = client.completions.with_raw_response.create(model=MODEL, prompt="안녕", max_tokens=5)
    assert daemun.entry(answer.headers["x-request-id"])["completion_tokens"] <= 5


def test_models_lists_the_model_and_says_when_one_is_unknown(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL


def test_usage_shows_what_was_used(daemun: Stack, client: openai.OpenAI) -> None:
    answer = client.completions.with_raw_response.create(model=MODEL, prompt="안녕", max_tokens=5)
    daemun.entry(answer.headers["x-request-id"])
    command = [sys.executable, "-m", "daemun", "usage"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=daemun.environment, cwd=daemun.folder)
    assert "first-tenant" in shown.stdout
    assert MODEL in shown.stdout
