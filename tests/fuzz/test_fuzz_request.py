"""Reading requests: any bytes are either refused by name or read as the engine will read them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given

from gateway.errors import InvalidField, InvalidRequest, MalformedJson
from gateway.protocol.endpoint import CHAT
from gateway.protocol.openai import read
from tests.fuzz.effort import fuzz
from tests.fuzz.json_text import bodies

OURS = ("stream_options", "return_token_ids")  # what the gateway may change on its own account


@fuzz(percent=32)
@given(bodies())
def test_request_is_refused_by_name_or_read_as_the_engine_reads_it(body: bytes) -> None:
    try:
        request = read(body, CHAT)
    except InvalidRequest as error:
        check(error)
        return
    try:
        meant, engine = as_the_engine_reads(body), as_the_engine_reads(request.body)
    except UnicodeDecodeError:  # in a field that the gateway does not look at; engines refuse it
        return
    assert engine["model"] == request.model
    assert bool(engine.get("stream")) == request.stream
    assert max(1, engine.get("n") or 1) == request.n
    assert _without_ours(engine) == _without_ours(meant)


@pytest.mark.parametrize("stream", ["true", "false"])
def test_hundred_thousand_messages_are_refused_by_name(stream: str) -> None:
    message = '{"role":"user","content":"안녕?"}'
    body = f'{{"model":"m","stream":{stream},"messages":[{",".join([message] * 100_000)}]}}'.encode()
    with pytest.raises(InvalidField) as caught:
        read(body, CHAT)
    assert caught.value.param == "messages"


@pytest.mark.parametrize("levels", [10, 500, 1_000, 5_000, 100_000])
@pytest.mark.parametrize("bomb", ['{"model":"m","stream":true,"x":%s1%s}', '{"model":"m","prompt":%s1%s}', "%s1%s"])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ("[", "")])
def test_nesting_bombs_are_refused_or_read(bomb: str, levels: int, opening: str, closing: str) -> None:
    body = (bomb % (opening * levels, closing * levels)).encode()
    try:
        request = read(body, CHAT)
    except InvalidRequest as error:
        check(error)
    else:
        assert as_the_engine_reads(request.body)["model"] == "m"


@pytest.mark.parametrize(
    "body", [b'{"model":"m","stream":true,"\x80":1}', b'{"model":"m","stream":true,"stream_options":{"\x80":1}}']
)
def test_key_that_is_no_utf8_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedJson):
        read(body, CHAT)


def check(error: InvalidRequest) -> None:
    assert isinstance(error, MalformedJson | InvalidField)
    assert isinstance(error, InvalidField) == bool(error.param)
    assert json.loads(error.body("en"))["error"]["message"]
    assert json.loads(error.body("ko"))["error"]["message"]


def as_the_engine_reads(body: bytes) -> dict[str, Any]:
    """Python's json module, as FastAPI uses it: of two equal keys the last counts. Without its limits on depth and digits."""
    with _deep_stack():
        fields: dict[str, Any] = json.loads(
            body, parse_int=lambda digits: int(digits) if len(digits) < 4300 else digits, parse_constant=str
        )
    return fields


def _without_ours(fields: dict[str, Any]) -> str:
    with _deep_stack():
        return json.dumps({name: value for name, value in fields.items() if name not in OURS}, sort_keys=True)


@contextmanager
def _deep_stack() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(5000)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
