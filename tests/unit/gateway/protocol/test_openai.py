"""Requests to chat and text completions: what is read, what is written into them, and which field an error names."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidField, InvalidRequest, MalformedJson, OperatorField
from gateway.protocol.endpoint import CHAT, COMPLETIONS, ENDPOINTS, Endpoint
from gateway.protocol.fields import OPERATOR_ONLY, ChatRequest
from gateway.protocol.openai import UsageWish, read
from tests.strategies import texts

COUNT_EVERYTHING = {"include_usage": True, "continuous_usage_stats": True}
_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
_options = st.none() | st.dictionaries(
    st.sampled_from(["include_usage", "continuous_usage_stats"]), st.booleans() | st.none()
).flatmap(lambda known: st.dictionaries(texts, _anything, max_size=2).map(lambda other: other | known))
_others = st.dictionaries(texts.filter(lambda name: name not in ChatRequest.__struct_encode_fields__), _anything, max_size=4)


@given(_others, _options, st.booleans(), st.booleans())
def test_streaming_body_gains_what_the_gateway_asks_and_nothing_else(
    others: dict[str, Any], options: dict[str, Any] | None, ascii_only: bool, spaced: bool
) -> None:
    fields = others | {"model": "대문", "stream": True} | ({} if options is None else {"stream_options": options})
    body = json.dumps(fields, ensure_ascii=ascii_only, indent=1 if spaced else None).encode()
    request = read(body, CHAT)
    ids = {} if request.plan is None else {"return_token_ids": True}
    assert json.loads(request.body) == fields | ids | {"stream_options": (options or {}) | COUNT_EVERYTHING}
    if "stream_options" not in fields:
        assert request.body.startswith(body.rstrip()[:-1])
    assert (request.model, request.stream) == ("대문", True)


@given(_others, st.sampled_from([{}, {"stream": False}, {"stream": None}]))
def test_whole_answers_are_asked_for_with_the_clients_own_bytes(others: dict[str, Any], stream: dict[str, Any]) -> None:
    body = json.dumps(others | {"model": "m"} | stream, indent=2).encode()
    request = read(body, CHAT)
    assert request.body == body
    assert not request.stream


def test_numbers_keep_their_digits() -> None:
    body = b'{"model":"m","stream":true,"seed":123456789012345678901234567890,"temperature":0.10000000000000000001}'
    assert b'"seed":123456789012345678901234567890,"temperature":0.10000000000000000001' in read(body, CHAT).body


@pytest.mark.parametrize(
    ("options", "wish"),
    [
        (None, UsageWish.NONE),
        ({}, UsageWish.NONE),
        ({"include_usage": False, "continuous_usage_stats": True}, UsageWish.NONE),
        ({"include_usage": True}, UsageWish.FINAL),
        ({"include_usage": True, "continuous_usage_stats": None}, UsageWish.FINAL),
        ({"include_usage": True, "continuous_usage_stats": True}, UsageWish.EVERY_CHUNK),
    ],
)
def test_wish_is_what_vllm_would_make_of_the_options(options: dict[str, Any] | None, wish: UsageWish) -> None:
    assert read(json.dumps({"model": "m", "stream": True, "stream_options": options}).encode(), CHAT).wish is wish


@pytest.mark.parametrize(
    ("fields", "single"),
    [
        ({}, True),
        ({"n": None}, True),
        ({"n": 2}, False),
        ({"prompt": "하나"}, True),
        ({"prompt": [1, 2, 3]}, True),
        ({"prompt": ["하나"]}, True),
        ({"prompt": [[1, 2]]}, True),
        ({"prompt": ["하나", "둘"]}, False),
        ({"prompt": [[1], [2]]}, False),
        ({"prompt": []}, True),
    ],
)
def test_one_choice_is_told_from_several(fields: dict[str, Any], single: bool) -> None:
    assert read(json.dumps(fields | {"model": "m"}, indent=1).encode(), COMPLETIONS).single_choice is single


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{}", "model"),
        (b'{"model":null}', "model"),
        (b'{"model":7}', "model"),
        (b'{"model":"m","stream":"yes"}', "stream"),
        (b'{"model":"m","n":"two"}', "n"),
        (b'{"model":"m","n":1.5}', "n"),
        (b'{"model":"m","n":0}', "n"),
        (b'{"model":"m","n":-1}', "n"),
        (b'{"model":"m","max_tokens":-1}', "max_tokens"),
        (b'{"model":"m","max_tokens":9e99}', "max_tokens"),
        (b'{"model":"m","max_tokens":' + b"9" * 40 + b"}", "max_tokens"),
        (b'{"model":"m","max_completion_tokens":"7"}', "max_completion_tokens"),
        (b'{"model":"' + b"m" * 257 + b'"}', "model"),
        (b'{"model":"m","stream_options":[]}', "stream_options"),
        (b'{"model":"m","stream_options":{"include_usage":"yes"}}', "stream_options.include_usage"),
        (b'{"model":"m","stream_options":{"continuous_usage_stats":1}}', "stream_options.continuous_usage_stats"),
    ],
)
def test_wrong_field_is_named(body: bytes, param: str) -> None:
    with pytest.raises(InvalidField) as caught:
        read(body, CHAT)
    assert caught.value.param == param
    assert f"'{param}'" in caught.value.message("en")
    assert f"'{param}'" in caught.value.message("ko")
    assert "`" not in caught.value.message("en")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"[]",
        b"null",
        b'"text"',
        b"model=m",
        b'{"model":"m"',
        b'{"model":"m"} x',
        b'{"model":"\xff"}',
        b'{"model":"m","stream":true,"\\ud800":1}',
        b'{"model":"m","stream":NaN}',
        b'{"model":"m","temperature":NaN}',
        b'{"model":"m","messages":[-Infinity]}',
        b'{"model":"m","messages":["\\ud83d"]}',
        b'{"model":"m","messages":["\\ud83d\\ud83d"]}',
        b'{"model":"m","x":"\\ude00"}',
        b'\xef\xbb\xbf{"model":"m"}',
        '{"model":"m"}'.encode("utf-16"),
        b'{"model":"m","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model":"m","stream":true,"stream_options":{"x":' + b'{"x":' * 100_000 + b"1" + b"}" * 100_002,
    ],
)
def test_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedJson) as caught:
        read(body, CHAT)
    assert (caught.value.status, caught.value.param) == (400, None)


def escaped(name: str) -> st.SearchStrategy[str]:
    """The name as a JSON string, any of its letters escaped."""
    letters = [st.sampled_from([letter, f"\\u{ord(letter):04x}", f"\\u{ord(letter):04X}"]) for letter in name]
    return st.tuples(*letters).map(lambda spelt: '"' + "".join(spelt) + '"')


_read_values: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from(["a", "b", "한국어"]),
    "stream": st.none() | st.booleans(),
    "n": st.none() | st.integers(1, 3),
    "max_tokens": st.none() | st.integers(0, 99),
    "max_completion_tokens": st.none() | st.integers(0, 99),
    "stream_options": _options,
    "messages": st.lists(st.dictionaries(texts, _anything, max_size=2), max_size=2),
}
_spelt = st.sampled_from(sorted(_read_values)).flatmap(
    lambda name: st.tuples(escaped(name), _read_values[name].map(json.dumps)).map(": ".join)
)


@given(st.lists(_spelt, max_size=8), st.booleans())
def test_gateway_and_engine_read_the_same_of_repeated_and_escaped_fields(fields: list[str], streams: bool) -> None:
    """vLLM reads with Python's json, which takes the last of several: so must we, or limits and engine see two requests."""
    body = ("{" + ", ".join(['"model": "a"', f'"stream": {json.dumps(streams)}', *fields]) + "}").encode()
    request = read(body, CHAT)
    for engine in (json.loads(body), json.loads(request.body)):
        limit = engine.get("max_completion_tokens")
        assert request.model == engine["model"]
        assert request.stream is bool(engine["stream"])
        assert request.n == (engine.get("n") or 1)
        assert request.max_tokens == (engine.get("max_tokens") if limit is None else limit)
        assert json.loads(request.prompt or "null") == engine.get("messages")
    if request.stream:
        asked = json.loads(request.body)["stream_options"]
        assert asked == (json.loads(body).get("stream_options") or {}) | COUNT_EVERYTHING


@pytest.mark.parametrize("name", sorted(OPERATOR_ONLY))
@pytest.mark.parametrize("value", [b"0", b"{}", b'""', b"[]", b"false", b'{"x":[{"y":1}]}'])
def test_what_only_the_operator_may_set_is_refused_by_name(name: str, value: bytes) -> None:
    for endpoint in ENDPOINTS:
        with pytest.raises(OperatorField) as caught:
            read(b'{"model":"m","%s":%s}' % (name.encode(), value), endpoint)
        assert (caught.value.status, caught.value.code, caught.value.param) == (400, "invalid_request", name)
    assert f"'{name}'" in caught.value.message("en")
    assert "leave it out; the operator sets it" in caught.value.message("en")
    assert "운영자" in caught.value.message("ko")


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","pri\\u006frity":1}',
        b'{"model":"m","\\u0070\\u0072\\u0069\\u006F\\u0072\\u0069\\u0074\\u0079":1}',
        b'{"model":"m","priority":1,"priority":null}',
        b'{"model":"m","priority":null,"priority":1}',
        b'{"priority":1,"model":"m","stream":true}',
    ],
)
def test_operators_fields_cannot_be_smuggled_in(body: bytes) -> None:
    with pytest.raises(OperatorField) as caught:
        read(body, CHAT)
    assert caught.value.param == "priority"


def test_null_is_as_good_as_leaving_a_field_out() -> None:
    body = json.dumps({"model": "m"} | dict.fromkeys(ChatRequest.__struct_encode_fields__[1:])).encode()
    request = read(body, CHAT)
    assert (request.stream, request.n, request.max_tokens, request.single_choice) == (False, 1, None, True)


def test_operators_names_are_nothing_special_inside_other_fields() -> None:
    tools = '[{"type":"function","function":{"name":"f","parameters":{"properties":{"priority":{"type":"integer"}}}}}]'
    assert read(b'{"model":"m","metadata":{"priority":1},"tools":%s}' % tools.encode(), CHAT).model == "m"


@pytest.mark.parametrize(
    ("endpoint", "fields", "most"),
    [
        (CHAT, {}, None),
        (CHAT, {"max_tokens": 5}, 5),
        (CHAT, {"max_tokens": 5, "max_completion_tokens": 7}, 7),
        (CHAT, {"max_tokens": 5, "max_completion_tokens": None}, 5),
        (CHAT, {"max_completion_tokens": 0, "max_tokens": 5}, 0),
        (COMPLETIONS, {}, 16),
        (COMPLETIONS, {"max_tokens": None}, 16),
        (COMPLETIONS, {"max_tokens": 0}, 0),
    ],
)
def test_most_tokens_are_those_that_the_engine_would_allow(endpoint: Endpoint, fields: dict[str, Any], most: int | None) -> None:
    assert read(json.dumps({"model": "m"} | fields).encode(), endpoint).max_tokens == most


@given(st.binary(max_size=40) | _anything.map(lambda value: json.dumps(value).encode()), st.sampled_from(ENDPOINTS))
def test_any_body_is_read_or_refused(body: bytes, endpoint: Endpoint) -> None:
    with contextlib.suppress(InvalidRequest):
        read(body, endpoint)
