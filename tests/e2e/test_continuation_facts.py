"""What the continuation of streams relies on, asked of the real engine: one replica plays the dead one and the next."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.protocol import continuation
from gateway.protocol.chunk import fields_of
from gateway.protocol.continuation import CHAT, COMPLETIONS, Ask, End, Send
from gateway.protocol.openai import UsageWish
from gateway.protocol.recorder import Recorder
from gateway.protocol.sse import DATA, DONE, EventSplitter
from tests.e2e.stack import MODEL, Stack

JSON = {"Content-Type": "application/json"}
QUESTION = "쀍뷁 이라고 따라 말해 봐: 쀍뷁 똠방각하 펲시콜라 쀍뷁"  # rare syllables, which are several tokens each
EVERYTHING: dict[str, object] = {
    "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    "return_token_ids": True,
}


@pytest.fixture(scope="module")
def replica(daemun: Stack) -> Iterator[httpx.Client]:
    """The engine's own server, past the gateway."""
    urls = [f"http://127.0.0.1:{port}/{MODEL}" for port in daemun.replica_ports]
    with httpx.Client(base_url=next(filter(_is_engine, urls)), timeout=60, headers=JSON) as made:
        yield made


def _is_engine(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v1/models").status_code == 200
    except httpx.TransportError:
        return False


def request(replica: httpx.Client, endpoint: str, **fields: object) -> dict[str, object]:
    """The same question by both: elsewhere the small model is so undecided that the next token hangs on rounding."""
    prompt: dict[str, object] = {"messages": [{"role": "user", "content": QUESTION}]}
    if endpoint == COMPLETIONS:
        prompt = {"prompt": replica.post("/tokenize", json={"model": MODEL, **prompt}).json()["tokens"]}
    return {"model": MODEL, "stream": True, "temperature": 0, **prompt, **fields}


def stream(replica: httpx.Client, path: str, body: bytes) -> list[bytes]:
    answer = replica.post(path, content=body)
    assert answer.status_code == 200, answer.text
    return EventSplitter().feed(answer.content)


def recorder(wish: UsageWish, endpoint: str, fields: dict[str, object]) -> Recorder:
    body = json.dumps(fields | EVERYTHING).encode()
    plan = continuation.plan(endpoint, fields_of(DATA + json.dumps(fields).encode()) or {})
    assert plan is not None
    return Recorder(wish, plan, again=Send(endpoint, body))


def summary(events: list[bytes]) -> dict[str, Any]:
    assert events[-1] == DONE
    chunks = [json.loads(event[len(DATA) :]) for event in events[:-1]]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    text = "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)
    return {
        "text": text,
        "streams": len({(chunk["id"], chunk["created"], chunk["object"]) for chunk in chunks}),
        "roles": sum("role" in choice.get("delta", {}) for choice in choices),
        "finish": [(choice["finish_reason"], choice["stop_reason"]) for choice in choices if choice["finish_reason"]],
        "usage": chunks[-1].get("usage"),
        "fields": {frozenset(chunk) - {"system_fingerprint"} for chunk in chunks},
    }


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 60},
        {"max_tokens": 15, "min_tokens": 15},
        {"max_tokens": 60, "stream_interval": 3},
        {"max_tokens": 60, "repetition_penalty": 1.05},
        {"max_tokens": 60, "stop": "from the middle"},
        {"max_tokens": 60, "stop": "from the middle", "include_stop_str_in_output": True},
        {"max_tokens": None},
    ],
    ids=["plain", "to its limit", "three tokens a chunk", "penalty", "stop string", "stop string included", "no limit"],
)
def test_stream_broken_anywhere_goes_on_as_it_would_have(replica: httpx.Client, endpoint: str, fields: dict[str, object]) -> None:
    """At every event of it: one stream, the same text, the same end, the same counts."""
    fields = dict(fields)
    if "stop" in fields:
        plain = summary(stream(replica, endpoint, json.dumps(request(replica, endpoint, max_tokens=60)).encode()))["text"]
        fields["stop"] = [plain[len(plain) // 2 :][:5], "없을 말"]
    asked = request(replica, endpoint, **fields)
    whole = stream(replica, endpoint, json.dumps(asked | EVERYTHING).encode())
    reader = recorder(UsageWish.FINAL, endpoint, asked)
    expected = summary(EventSplitter().feed(b"".join(reader.read(event) for event in whole)))
    for cut in range(len(whole) - 1):
        reader = recorder(UsageWish.FINAL, endpoint, asked)
        out = b"".join(reader.read(event) for event in whole[:cut])
        step = reader.go_on()
        while isinstance(step, Ask):
            step = reader.go_on(replica.post(step.path, content=step.body).content)
        if isinstance(step, End):
            out += step.data
        else:
            assert isinstance(step, Send)
            out += b"".join(reader.read(event) for event in stream(replica, step.path, step.body))
        got = summary(EventSplitter().feed(out))
        if "stop" in fields:  # the tokens of a chunk of several that holds the stop string are estimated
            assert got.pop("usage")["completion_tokens"] == pytest.approx(expected["usage"]["completion_tokens"], abs=4)
        assert got == {name: expected[name] for name in got}, cut


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("wish", UsageWish)
def test_what_was_asked_for_is_cut_out_again(replica: httpx.Client, endpoint: str, wish: UsageWish) -> None:
    """Up to the stream's id and time, and how vLLM happened to merge tokens into chunks."""
    options = {"include_usage": wish is not UsageWish.NONE, "continuous_usage_stats": wish is UsageWish.EVERY_CHUNK}
    asked = request(replica, endpoint, max_tokens=12, stream_options=options)
    for _ in range(8):
        own = stream(replica, endpoint, json.dumps(asked).encode())
        reader = recorder(wish, endpoint, asked)
        cut = b"".join(reader.read(event) for event in stream(replica, endpoint, json.dumps(asked | EVERYTHING).encode()))
        if alike(EventSplitter().feed(cut)) == alike(own):
            return
    assert alike(EventSplitter().feed(cut)) == alike(own)


def alike(events: list[bytes]) -> list[bytes]:
    """Without what all chunks of a stream begin with: its id and time."""
    return [event[event.find(b'"choices"') :] for event in events]


def test_every_field_of_the_engines_requests_was_decided_on() -> None:
    """A new version's fields prevent a continuation until then, which is safe; this tells that there are some."""
    chat = pytest.importorskip("vllm.entrypoints.openai.chat_completion.protocol").ChatCompletionRequest
    text = pytest.importorskip("vllm.entrypoints.openai.completion.protocol").CompletionRequest
    assert {*chat.model_fields, *text.model_fields} - continuation.DECIDED == set()
