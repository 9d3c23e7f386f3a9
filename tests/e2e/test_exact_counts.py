"""Where what a prompt surely has at most does not fit a limit, the model's own tokenizer decides; and it counts as the engine."""

from __future__ import annotations

import itertools
import json
import time
from contextlib import closing
from typing import Any

import httpx
import pytest

from gateway.adapters import sqlite, sqlite_tenants
from gateway.adapters.system_clock import SystemClock
from gateway.policy.window import MINUTE_MS, phase_of
from tests.e2e.stack import MODEL, Stack

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TALK = "대문은 한국어 모델을 GPU에서 함께 쓰게 해 주는 관문입니다. 기다리는 사람에게는 차례와 시간을 알려 줍니다. " * 6
TURNS = [
    {"role": "system", "content": "짧고 친절하게 답해 주세요."},
    {"role": "user", "content": TALK},
    {"role": "assistant", "content": "네, 알겠습니다."},
    {"role": "user", "content": "그럼 두 문장으로 줄여 주세요."},
]
ANSWER = 8
MARGIN = 12  # tokens that the limit has beyond what is needed: far fewer than what a bound is off by
tenants = (f"school-{number}" for number in itertools.count())


def key_with(daemun: Stack, tokens_per_minute: int) -> str:
    """Of a tenant of whom nothing is known, in a window that lasts for the test's calls."""
    tenant = next(tenants)
    left_s = (MINUTE_MS - (int(time.time() * 1000) + phase_of(f"tenant:{tenant}")) % MINUTE_MS) / 1000
    if left_s < 20:
        time.sleep(left_s + 0.1)
    with closing(sqlite.connect(sqlite.store_path(daemun.state_dir))) as store:
        limits = {"tokens_per_minute": tokens_per_minute}
        key, _ = sqlite_tenants.create_key(store, SystemClock(), tenant=tenant, project="homework", limits=limits)
    return str(key)


def ask(daemun: Stack, key: str, path: str, body: dict[str, Any]) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    content = json.dumps({"model": MODEL, **body}, ensure_ascii=False).encode()
    return httpx.post(f"{daemun.url}{path}", content=content, headers=headers, timeout=60)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": [{"role": "user", "content": TALK}]}),
        (CHAT, {"messages": TURNS, "reasoning_effort": "low", "chat_template_kwargs": {"unknown": 1}}),
        (COMPLETIONS, {"prompt": TALK}),
        (COMPLETIONS, {"prompt": [TALK, "짧은 글"]}),
        (COMPLETIONS, {"prompt": [7] * 300}),
    ],
    ids=["chat", "turns", "text", "texts", "ids"],
)
def test_prompt_that_fits_only_by_its_exact_count_is_admitted_and_counted_as_the_engine_does(
    daemun: Stack, path: str, body: dict[str, Any]
) -> None:
    body = body | {"max_tokens": ANSWER, "temperature": 0}
    engine = ask(daemun, daemun.key, path, body).raise_for_status().json()["usage"]["prompt_tokens"]
    small = {"prompt": [7] * 10, "max_tokens": 1, "temperature": 0}
    key = key_with(daemun, limit := engine + ANSWER + MARGIN + 11)
    assert ask(daemun, key, COMPLETIONS, small).status_code == 200

    text = body.get("prompt", body.get("messages"))
    assert len(json.dumps(text, ensure_ascii=False, separators=(",", ":")).encode()) + ANSWER > limit, "the bound does not fit"
    unknown = ask(daemun, key, "/v1/responses", {"input": TALK, "max_output_tokens": ANSWER})
    assert unknown.status_code == 429, "nobody counts these exactly, so the bound decides"

    answer = ask(daemun, key, path, body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["prompt_tokens"] == engine
    remaining = int(answer.headers["x-ratelimit-remaining-tokens"])
    assert limit - 11 - remaining - ANSWER == engine, "reserved was what the tokenizer counted, and the answer's allowance"


def test_prompt_that_does_not_fit_by_its_exact_count_is_refused_until_the_next_minute(daemun: Stack) -> None:
    body = {"messages": [{"role": "user", "content": TALK}], "max_tokens": ANSWER, "temperature": 0}
    engine = ask(daemun, daemun.key, CHAT, body).raise_for_status().json()["usage"]["prompt_tokens"]
    key = key_with(daemun, engine + ANSWER + 10)
    assert ask(daemun, key, COMPLETIONS, {"prompt": [7] * 10, "max_tokens": 1}).status_code == 200
    refused = ask(daemun, key, CHAT, body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 0 < int(refused.headers["retry-after"]) <= 61
