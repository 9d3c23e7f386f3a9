"""Requests: what is read, what is written into them, and which field an error names."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidField, InvalidRequest, MalformedJson
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
_others = st.dictionaries(
    texts.filter(lambda name: name not in ("model", "stream", "stream_options", "n")), _anything, max_size=4
)


@given(_others, _options, st.booleans(), st.booleans())
def test_streaming_body_gains_stream_options_and_nothing_else(
    others: dict[str, Any], options: dict[str, Any] | None, ascii_only: bool, spaced: bool
) -> None:
    fields = others | {"model": "대문", "stream": True} | ({} if options is None else {"stream_options": options})
    body = json.dumps(fields, ensure_ascii=ascii_only, indent=1 if spaced else None).encode()
    request = read(body)
    assert json.loads(request.body) == fields | {"stream_options": (options or {}) | COUNT_EVERYTHING}
    assert (request.model, request.stream) == ("대문", True)


@given(_others, st.sampled_from([{}, {"stream": False}, {"stream": None}]))
def test_whole_answers_are_asked_for_with_the_clients_own_bytes(others: dict[str, Any], stream: dict[str, Any]) -> None:
    body = json.dumps(others | {"model": "m"} | stream, indent=2).encode()
    request = read(body)
    assert request.body == body
    assert not request.stream


def test_numbers_keep_their_digits() -> None:
    body = b'{"model":"m","stream":true,"seed":123456789012345678901234567890,"temperature":0.10000000000000000001}'
    assert b'"seed":123456789012345678901234567890,"temperature":0.10000000000000000001' in read(body).body


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
    assert read(json.dumps({"model": "m", "stream": True, "stream_options": options}).encode()).wish is wish


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
    assert read(json.dumps(fields | {"model": "m"}, indent=1).encode()).single_choice is single


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{}", "model"),
        (b'{"model":null}', "model"),
        (b'{"model":7}', "model"),
        (b'{"model":"m","stream":"yes"}', "stream"),
        (b'{"model":"m","n":"two"}', "n"),
        (b'{"model":"m","n":1.5}', "n"),
        (b'{"model":"m","stream_options":[]}', "stream_options"),
        (b'{"model":"m","stream_options":{"include_usage":"yes"}}', "stream_options.include_usage"),
        (b'{"model":"m","stream_options":{"continuous_usage_stats":1}}', "stream_options.continuous_usage_stats"),
    ],
)
def test_wrong_field_is_named(body: bytes, param: str) -> None:
    with pytest.raises(InvalidField) as caught:
        read(body)
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
        b'{"model":"m","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model":"m","stream":true,"stream_options":{"x":' + b'{"x":' * 100_000 + b"1" + b"}" * 100_002,
    ],
)
def test_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedJson) as caught:
        read(body)
    assert (caught.value.status, caught.value.param) == (400, None)


def test_last_of_duplicate_keys_counts_as_in_the_engine() -> None:
    """Python's json, which vLLM reads with, takes the last one too."""
    body = b'{"model":"a","stream":true,"model":"b","stream_options":{"include_usage":true},"stream_options":null}'
    request = read(body)
    assert (request.model, request.wish) == ("b", UsageWish.NONE)
    assert json.loads(request.body) == {"model": "b", "stream": True, "stream_options": COUNT_EVERYTHING}


@given(st.binary(max_size=40) | _anything.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        read(body)
