"""The whole gateway over fakes: any request, any engine, any moment to leave. Never a 500, OpenAI's error shape, nothing left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.protocol import openai
from gateway.protocol.asgi import App, Receive, Scope, Send
from gateway.protocol.endpoint import ENDPOINTS
from gateway.protocol.openai import UsageWish
from tests.fakes import STAYS, FakeClient, Leaving, Received, Script
from tests.fuzz.effort import fuzz, in_virtual_time
from tests.fuzz.json_text import bodies, mutated
from tests.strategies import cuts, texts
from tests.unit.gateway.house import House
from tests.vllm_stream import chat, cut

Header = tuple[bytes, bytes]
BY_PATH = {endpoint.path: endpoint for endpoint in ENDPOINTS}
KEY: Header = (b"authorization", b"Bearer dm-anna")
ERRORS = {400, 401, 403, 404, 405, 413, 415, 422, 429, 502, 503, 504}
PAGES = {"/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json", "/health/live", "/health/ready"}
NOT_READY = (503, b"/health/ready")  # said to machines, in a shape of its own


@dataclass(frozen=True)
class Asked:
    """One request as it comes over the wire, at the level of ASGI."""

    method: str
    path: bytes
    headers: tuple[Header, ...]
    body: tuple[bytes, ...]
    leaving: Leaving = STAYS

    async def of(self, app: App) -> Received:
        async def as_asked(scope: Scope, receive: Receive, send: Send) -> None:
            path, _, query = self.path.partition(b"?")
            decoded = unquote_to_bytes(path).decode("utf-8", "replace")
            raw: dict[str, Any] = {"headers": list(self.headers), "path": decoded, "raw_path": path, "query_string": query}
            await app({**scope, **raw}, receive, send)

        # A task of its own, as under a server; when its client has left, it may as well end as cancelled.
        answering = asyncio.create_task(FakeClient(as_asked).request(self.method, "/", self.body, self.leaving))
        await asyncio.wait([answering])
        if answering.cancelled():
            assert self.leaving is not STAYS
            return Received()
        return answering.result()


_VALUES = st.one_of(
    st.binary(max_size=12),
    st.sampled_from(
        [b"", b"ko", b"ko;q=x,en;q=\xb2", b"ko;q=nan", b"q=0;q=1,,;", b"-1", b"99999999999999999999", "²".encode(), b"chunked"]
    ),
    st.sampled_from(
        [b"Bearer", b"bearer  dm-anna ", b"Basic dm-anna", b"Bearer \xff\xfe", b"Bearer dm-bora", b"gzip", b"a" * 1_000_000]
    ),
)
_NAMES = st.sampled_from(
    [
        b"authorization",
        b"accept-language",
        b"content-length",
        b"content-type",
        b"x-request-id",
        b"accept",
        b"range",
        b"origin",
        b"cookie",
    ]
)
headers = st.tuples(
    st.sampled_from([(KEY,), (KEY,), (KEY,), ()]), st.lists(st.tuples(_NAMES, _VALUES), max_size=3).map(tuple)
).map(lambda drawn: drawn[0] + drawn[1])
_SEGMENTS = st.sampled_from(
    [
        b"v1",
        b"models",
        b"chat",
        b"completions",
        b"daemun-demo",
        b"health",
        b"ready",
        b"docs",
        b"..",
        b"",
        b"%2e%2e",
        b"%ff",
        b"%00",
        b"a" * 3000,
    ]
) | st.binary(max_size=4).map(lambda data: data.replace(b"?", b""))
paths = st.one_of(
    st.sampled_from([path.encode() for path in (*BY_PATH, *PAGES, "/v1/models", "/v1/models/daemun-demo", "/v1/models/")]),
    st.lists(_SEGMENTS, max_size=5).map(lambda segments: b"/" + b"/".join(segments)),
    texts.map(lambda text: b"/v1/models/" + text.encode()),
)
_METHODS = st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "BREW"])
_LEAVING = st.one_of(
    st.just(STAYS),
    st.just(STAYS),
    st.integers(0, 4).map(lambda count: Leaving(after_messages=count)),
    st.sampled_from([0.0, 0.005, 0.01, 0.025, 5.0, 40.0]).map(lambda seconds: Leaving(after_s=seconds)),
    st.integers(0, 3).map(lambda count: Leaving(send_fails_at=count)),
)
_SAID = st.one_of(
    st.sampled_from(
        [b"".join(chat("안", "녕").events(UsageWish.EVERY_CHUNK)), b'{"choices":[],"usage":{"prompt_tokens":3}}', b""]
    ),
    st.sampled_from(
        [b'{"error":{"message":7}}', b'{"error":"no"}', b'{"detail":[1]}', b"<html>", b"null", b'data: {"error":{}}\n\n']
    ),
    st.binary(max_size=20),
).flatmap(mutated)


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """What an engine may do with a call, sane or not."""
    return Script(
        pieces=tuple(piece for piece in cut(draw(_SAID), draw(cuts)) if piece),
        status=draw(st.sampled_from([200, 200, 200, 200, 201, 204, 302, 400, 401, 404, 413, 422, 429, 500, 503, 999])),
        content_type=draw(
            st.sampled_from(["application/json", "text/event-stream", "text/event-stream; charset=utf-8", "", "\xff"])
        ),
        head=draw(st.sampled_from(["sent", "sent", "sent", "sent", "refused", "reset", "hangs"])),
        end=draw(st.sampled_from(["proper", "proper", "proper", "reset", "hangs"])),
    )


@st.composite
def calls(draw: st.DrawFn) -> Asked:
    """A call to a model: fuzzed body in pieces, fuzzed headers, and a client that may leave."""
    body = draw(bodies())
    pieces = tuple(cut(body, draw(cuts))) or (b"",)
    return Asked("POST", draw(st.sampled_from(list(BY_PATH))).encode(), draw(headers), pieces, draw(_LEAVING))


@fuzz(percent=8)
@given(calls(), st.lists(scripts(), min_size=1, max_size=3))
def test_call_ends_in_an_answer_or_an_error_and_keeps_nothing(asked: Asked, engines: Sequence[Script]) -> None:
    async def run() -> None:
        house = House(*engines)
        received = await asked.of(house.app)
        check(received, asked)
        assert house.has_given_everything_back()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert len(house.ledger.entries) <= 1
        assert all(len(reservation.settled) == 1 for reservation in house.limits.reservations)
        if received.messages and received.status == 200:
            assert house.entry.status == 200
        if received.ended and received.status == 400 and not house.upstream.calls:
            assert received.error["param"] == field_at_fault(asked)

    in_virtual_time(run())


@fuzz(percent=2)
@given(st.lists(calls(), min_size=2, max_size=6), scripts(), st.integers(0, 2))
def test_calls_at_once_keep_nothing_either(asked: Sequence[Asked], engine: Script, places: int) -> None:
    async def run() -> None:
        house = House(engine, places=places)
        for one, received in zip(asked, await asyncio.gather(*(one.of(house.app) for one in asked)), strict=True):
            check(received, one)
        assert house.has_given_everything_back()
        assert len(house.ledger.entries) <= len(asked)

    in_virtual_time(run())


@fuzz(percent=2)
@given(_METHODS, paths, headers, bodies())
def test_any_address_answers_in_openais_shape(method: str, path: bytes, sent: tuple[Header, ...], body: bytes) -> None:
    async def run() -> None:
        house = House(Script(status=503))
        asked = Asked(method, path, sent, (body,))
        check(await asked.of(house.app), asked)
        assert house.has_given_everything_back()

    in_virtual_time(run())


def field_at_fault(asked: Asked) -> str | None:
    with pytest.raises(InvalidRequest) as caught:
        openai.read(b"".join(asked.body), BY_PATH[asked.path.decode()])
    return caught.value.param


def check(received: Received, asked: Asked) -> None:
    """A proper HTTP answer, unless the client left before it; if it is an error, then one that clients can read."""
    if not received.messages:
        assert asked.leaving is not STAYS
        return
    start, *rest = received.messages
    assert start["type"] == "http.response.start"
    assert all(message["type"] == "http.response.body" for message in rest)
    for name, value in start["headers"]:
        assert name == name.lower()
        assert not {b"\r", b"\n", b"\x00"} & {value[at : at + 1] for at in range(len(value))}
    assert b"x-request-id" in dict(start["headers"])
    if asked.leaving is not STAYS:
        return
    assert received.ended
    length = dict(start["headers"]).get(b"content-length")
    assert length is None or int(length) == len(received.body)
    if received.status >= 400 and (received.status, asked.path) != NOT_READY:
        _check_error(received)
    else:
        assert received.status in (200, 307, 503)


def _check_error(received: Received) -> None:
    assert received.status in ERRORS
    assert received.headers["content-type"] == "application/json"
    error = json.loads(received.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert all(isinstance(error[name], str) and error[name] for name in ("message", "type", "code"))
    assert error["param"] is None or (isinstance(error["param"], str) and error["param"])
    if error["code"] in ("model_not_found", "model_not_allowed"):
        assert error["param"] == "model"
