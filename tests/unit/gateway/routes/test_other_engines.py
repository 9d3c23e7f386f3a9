"""Calls to servers that are not vLLM: what they are sent, and what becomes of their streams."""

from __future__ import annotations

import msgspec
import pytest

from gateway.ports import Replica
from gateway.protocol.plain import Engine
from tests.fakes import Script
from tests.unit.gateway.house import MODEL, A, House

OTHER = Replica("other", MODEL, "http://other", Engine.OTHER, "tiny.gguf")
ROLE = b'data: {"choices":[{"delta":{"role":"assistant"},"index":0}]}\n\n'
WORD = b'data: {"choices":[{"delta":{"content":"\xec\x95\x88"},"index":0}]}\n\n'
LAST = b'data: {"choices":[{"delta":{},"index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":8,"completion_tokens":1}}\n\n'
ASKED = b'{"model":"daemun-demo","messages":[{"role":"user","content":"hi"}],"stream":true}'


async def test_stream_is_asked_for_with_nothing_of_vllms_and_passes_as_it_is() -> None:
    house = House(Script(pieces=(ROLE, WORD, LAST)), replicas=(OTHER,))
    received = await house.client.post("/v1/chat/completions", ASKED)
    assert received.body == ROLE + WORD + LAST
    sent = msgspec.json.decode(house.upstream.calls[0][2])
    assert sent == msgspec.json.decode(ASKED) | {"model": "tiny.gguf", "stream_options": {"include_usage": True}}
    assert (house.entry.outcome, house.entry.prompt_tokens, house.entry.completion_tokens) == ("completed", 8, 1)
    assert house.has_given_everything_back()


async def test_stream_that_breaks_off_ends_with_one_error_and_is_counted_by_its_chunks() -> None:
    house = House(Script(pieces=(ROLE, WORD, WORD), end="reset"), replicas=(OTHER, A))
    house.fleet.set_ready(MODEL, [OTHER])
    received = await house.client.post("/v1/chat/completions", ASKED)
    assert received.body.startswith(ROLE + WORD + WORD + b"event: error\n")
    assert len(house.upstream.calls) == 1
    assert (house.entry.outcome, house.entry.completion_tokens) == ("failed", 2)
    assert house.entry.prompt_tokens > 0
    assert house.has_given_everything_back()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b'{"detail":"Unexpected fields: {\'x\'}"}', "Unexpected fields: {'x'}"),
        (b'{"error":"model is\\nloading"}', "model is loading"),
        (b'{"error":{"message":"no"}}', "no"),
        (b'{"detail":[{"loc":["body"]}]}', "it gave no reason"),
        (b'{"error":{"message":"no\x80"}}', "no"),
        (b"", "it gave no reason"),
    ],
)
async def test_refusal_is_understood_in_every_shape(said: bytes, told: str) -> None:
    house = House(Script(pieces=(said,) if said else (), status=422), replicas=(OTHER,))
    received = await house.client.post("/v1/chat/completions", ASKED)
    assert (received.status, received.error["message"]) == (400, f"The model cannot take this request: {told}")
