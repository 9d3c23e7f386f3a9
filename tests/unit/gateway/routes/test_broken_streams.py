"""Streams whose replica dies or stalls, through the whole gateway: the client reads one stream, the ledger has one call."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import pytest

from gateway.ports import Replica
from gateway.protocol.openai import UsageWish
from tests.byte_engine import ByteEngine
from tests.fakes import FakeAnswer, FakeUpstream, Received, Script
from tests.unit.gateway.house import MODEL, A, B, C, House

TEXT = "안녕하세요! 대문은 한국어 모델의 큰 문이에요. 똠방각하 쀍 😀 끝"
WORDS = tuple(TEXT.encode()[at : at + 2] for at in range(0, len(TEXT.encode()), 2))  # most cut a syllable in two
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
Json = dict[str, Any]


class Engines(FakeUpstream):
    """Replicas of one model; those named die, or go silent, after so many bytes of their first stream."""

    def __init__(self, engine: ByteEngine, dies: dict[str, int], how: Literal["reset", "hangs"] = "reset") -> None:
        super().__init__(Script())
        self.engine = engine
        self.dies = dict(dies)
        self.how = how

    async def open(self, replica: Replica, path: str, body: bytes, request_id: str, *, repeatable: bool = True) -> FakeAnswer:
        self.calls.append((replica.id, path, body, request_id))
        await asyncio.sleep(0.001)
        self.open_now += 1
        if path not in (CHAT, COMPLETIONS):
            return FakeAnswer(self, Script((self.engine.answer(path, body),), content_type="application/json"))
        ids = bool(json.loads(body).get("return_token_ids"))
        generation = self.engine.stream(path, body, f"{len(self.calls)}")
        data = b"".join(generation.events(UsageWish.EVERY_CHUNK, ids=ids))
        end = self.dies.pop(replica.id, None)
        pieces = tuple(data[:end][at : at + 700] for at in range(0, len(data[:end]), 700))
        return FakeAnswer(self, Script(pieces, end="proper" if end is None else self.how, every_s=0.001))


def stream(path: str = CHAT, **fields: object) -> bytes:
    prompt: Json = {"messages": [{"role": "user", "content": "안녕"}]} if path == CHAT else {"prompt": "안녕"}
    limit: Json = {} if path == CHAT else {"max_tokens": 200}
    return json.dumps({"model": MODEL, "stream": True} | prompt | limit | fields).encode()


def house_of(engines: Engines, *replicas: Replica) -> House:
    house = House(Script(), replicas=replicas or (A, B))
    house.use(engines)
    return house


def chunks(received: Received) -> list[Json]:
    *events, done, nothing = received.body.split(b"\n\n")
    assert (done, nothing) == (b"data: [DONE]", b"")
    return [json.loads(event.removeprefix(b"data: ")) for event in events]


def text(received: Received) -> str:
    """And that it is one stream: one id, one beginning, one end."""
    said = chunks(received)
    assert len({(chunk["id"], chunk["created"], chunk["object"]) for chunk in said}) == 1
    choices = [choice for chunk in said for choice in chunk["choices"]]
    assert sum("role" in choice.get("delta", {}) for choice in choices) == ("delta" in choices[0])
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]
    return "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)


async def whole(path: str) -> tuple[bytes, Json]:
    """The engine's stream, and what the gateway makes of it if nothing breaks."""
    engines = Engines(ByteEngine(WORDS), {})
    received = await house_of(engines).client.post(path, stream(path, stream_options={"include_usage": True}))
    assert text(received) == TEXT
    asked = engines.engine.stream(path, engines.calls[0][2], "1")
    return b"".join(asked.events(UsageWish.EVERY_CHUNK, ids=True)), chunks(received)[-1]["usage"]


@pytest.mark.parametrize("how", ["reset", "hangs"])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_stream_cut_anywhere_reads_as_one(path: str, how: Literal["reset", "hangs"]) -> None:
    """At every event's end, and in the middle of every event."""
    data, usage = await whole(path)
    ends = [at for at in range(len(data)) if data[:at].endswith(b"\n\n")]
    for end in sorted({*ends, *(at + 40 for at in ends[:-1]), 1}):
        engines = Engines(ByteEngine(WORDS), {"a": end}, how)
        house = house_of(engines)
        received = await house.client.post(path, stream(path, stream_options={"include_usage": True}))
        assert text(received) == TEXT, end
        assert {name: count for name, count in chunks(received)[-1]["usage"].items() if count} == usage, end
        entry = house.entry
        assert (entry.outcome, entry.error_code, entry.status) == ("completed", None, 200)
        assert (entry.prompt_tokens, entry.completion_tokens) == (usage["prompt_tokens"], usage["completion_tokens"])
        assert house.has_given_everything_back()


async def test_engine_is_not_left_generating_behind_a_stop_string_that_we_found() -> None:
    """After a break, stopping is ours: the engine was not told the string, and would go on to the end of its limit."""
    data, _ = await whole(CHAT)
    engines = Engines(ByteEngine(WORDS), {"a": len(data) // 3})
    house = house_of(engines)
    received = await house.client.post(CHAT, stream(stop="문이에요"))
    assert text(received) == TEXT[: TEXT.index("문이에요")]
    assert engines.left_early == 2, "the broken stream, and the one that goes on"
    assert house.entry.outcome == "completed"
    assert house.has_given_everything_back()


async def test_stream_goes_on_through_several_deaths() -> None:
    data, _ = await whole(CHAT)
    engines = Engines(ByteEngine(WORDS), {"a": len(data) // 4, "b": 4000})
    house = house_of(engines, A, B, C)
    assert text(await house.client.post(CHAT, stream())) == TEXT
    assert {replica for replica, path, *_ in engines.calls if path == COMPLETIONS} == {"b", "c"}
    assert house.fleet.broken == ["a", "b"]
    assert house.entry.replica == "c"


@pytest.mark.parametrize(
    "fields", [{"tools": [{"type": "function"}]}, {"logprobs": True}, {"n": 2}, {"response_format": {"type": "json_object"}}]
)
async def test_what_cannot_go_on_ends_with_one_error_event(fields: Json) -> None:
    data, _ = await whole(CHAT)
    house = house_of(Engines(ByteEngine(WORDS), {"a": len(data) // 2}))
    received = await house.client.post(CHAT, stream(**fields))
    *_, last = received.body.removesuffix(b"\n\n").split(b"\n\n")
    assert last.startswith(b"event: error\ndata: ")
    assert received.body.count(b"event: error") == 1
    assert b'"code":"upstream_unreachable"' in last
    assert house.entry.outcome == "failed"
    assert house.has_given_everything_back()


async def test_nobody_left_to_go_on_is_one_error_event_too() -> None:
    data, _ = await whole(CHAT)
    house = house_of(Engines(ByteEngine(WORDS), {"a": len(data) // 2}), A)
    received = await house.client.post(CHAT, stream())
    assert received.body.count(b"event: error") == 1
    assert house.entry.outcome in ("failed", "rejected")
    assert house.has_given_everything_back()


async def test_request_that_kills_every_replica_is_given_up() -> None:
    class Deadly(Engines):
        async def open(self, replica: Replica, path: str, body: bytes, request_id: str, *, repeatable: bool = True) -> FakeAnswer:
            self.dies = {replica.id: 5000}
            return await super().open(replica, path, body, request_id)

    engines = Deadly(ByteEngine(WORDS * 30), {})
    house = house_of(engines)
    house.fleet.connection_broke = lambda replica: None  # type: ignore[method-assign]  # they come back at once
    received = await house.client.post(CHAT, stream())
    assert received.body.count(b"event: error") == 1
    assert sum(path == COMPLETIONS for _, path, *_ in engines.calls) <= 4
    assert house.has_given_everything_back()
