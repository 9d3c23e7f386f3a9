"""What applications can reach, and that nothing else can be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import InvalidField, NothingIsKept
from gateway.protocol.endpoint import AT, EMBEDDINGS, ENDPOINTS, MESSAGES, RESPONSES, Endpoint
from gateway.protocol.openai import read
from tests.fakes import Script
from tests.unit.gateway.house import House

INTERNAL = (
    "/inference/v1/generate",
    "/v1/chat/completions/render",
    "/v1/chat/completions/derender",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/sleep",
    "/wake_up",
    "/pause",
    "/abort_requests",
    "/collective_rpc",
    "/reset_prefix_cache",
    "/server_info",
    "/start_profile",
    "/update_weights",
    "/scale_elastic_ep",
    "/fault_tolerance/apply",
    "/invocations",
    "/ping",
    "/load",
    "/metrics",
    "/version",
    "/tokenizer_info",
)


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m"} | fields).encode()


def test_every_address_is_there_once() -> None:
    assert len(AT) == len(ENDPOINTS)
    assert {endpoint.path for endpoint in ENDPOINTS if endpoint.stream} == {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
    }


@pytest.mark.parametrize("path", INTERNAL)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_belongs_to_the_operator_cannot_be_reached(method: str, path: str) -> None:
    house = House(Script(pieces=(b"{}",), content_type="application/json"))
    for spelling in (path, path + "/", "/v1" + path, path.upper(), f"/v1/models/..{path}", f"//{path}"):
        received = await house.client.request(method, spelling, [b'{"model":"daemun-demo"}'])
        assert received.status in (404, 405)
    assert house.upstream.calls == []


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.path)
async def test_every_address_reaches_the_engine_where_the_engine_has_it(endpoint: Endpoint) -> None:
    house = House(Script(pieces=(b"{}",), content_type="application/json"))
    sent = b'{ "model" : "daemun-demo", "other": [1.50, "\\ud83d\\ude00"] }'
    received = await house.client.post(endpoint.path, sent)
    assert (received.status, received.body) == (200, b"{}")
    assert house.upstream.calls[0][1:3] == (endpoint.engine_path, sent)
    assert house.entry.endpoint == endpoint.path


@pytest.mark.parametrize("path", [path for path, endpoint in AT.items() if not endpoint.stream])
def test_stream_means_nothing_where_nothing_streams(path: str) -> None:
    assert not read(body(stream=True), AT[path]).stream


@pytest.mark.parametrize("endpoint", [RESPONSES, MESSAGES], ids=lambda endpoint: endpoint.path)
def test_streams_whose_events_count_are_asked_for_nothing(endpoint: Endpoint) -> None:
    sent = body(stream=True, stream_options={"include_usage": False})
    request = read(sent, endpoint)
    assert (request.stream, request.body) == (True, sent)


@pytest.mark.parametrize(
    ("path", "fields", "prompt", "most"),
    [
        ("/v1/responses", {"input": "가", "instructions": "나", "max_output_tokens": 9}, ['"나"', '"가"'], 9),
        ("/v1/responses", {"input": "가"}, ['"가"'], None),
        ("/v1/messages", {"messages": [], "system": "나", "tools": [{}], "max_tokens": 9}, ["[{}]", '"나"', "[]"], 9),
        ("/v1/messages/count_tokens", {"messages": [], "system": "나"}, ['"나"', "[]"], 0),
        ("/v1/embeddings", {"input": ["가", "나"], "encoding_format": "base64"}, ['["가","나"]'], 0),
        ("/v1/embeddings", {"messages": [{}], "encoding_format": None}, ["[{}]"], 0),
        ("/v1/score", {"queries": "가", "documents": ["나"]}, ['"가"', '["나"]'], 0),
        ("/score", {"text_1": "가", "text_2": "나"}, ['"가"', '"나"'], 0),
        ("/v2/rerank", {"documents": ["나"], "query": "가"}, ['"가"', '["나"]'], 0),
        ("/tokenize", {"prompt": "가"}, ['"가"'], 0),
        ("/v1/tokenize", {"messages": [{}]}, ["[{}]"], 0),
        ("/detokenize", {"tokens": [1, 2]}, ["[1,2]"], 0),
    ],
)
def test_prompt_and_most_tokens_of_each_api(path: str, fields: dict[str, Any], prompt: list[str], most: int | None) -> None:
    compact = json.dumps({"model": "m"} | fields, ensure_ascii=False, separators=(",", ":")).encode()
    request = read(compact, AT[path])
    assert (request.prompt.decode(), request.max_tokens, request.single_choice) == ("".join(prompt), most, True)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"background": True}, "background"),
        ({"input": [{"role": "user"}, {"type": "item_reference", "id": "msg_1"}]}, "input"),
    ],
)
def test_what_needs_answers_of_the_past_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(NothingIsKept) as caught:
        read(body(**{"input": "가"} | fields), RESPONSES)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert "'input'" in caught.value.message("en")


@pytest.mark.parametrize("fields", [{"store": True}, {"store": False}, {"background": False}, {"previous_response_id": None}])
def test_what_merely_would_allow_to_keep_an_answer_passes(fields: dict[str, Any]) -> None:
    """OpenAI stores unless told not to, so saying so is no more than saying nothing."""
    sent = body(input="가", **fields)
    assert read(sent, RESPONSES).body == sent


@pytest.mark.parametrize(
    ("tools", "repeatable"),
    [
        (None, True),
        ([], True),
        ([{"type": "function", "name": "f"}, {"type": "custom"}], True),
        ([{"type": "function", "name": "f"}, {"type": "mcp"}], False),
        ([{"type": "code_interpreter"}], False),
        ([{"type": "web_search_preview"}], False),
        ([{"type": "something new"}], False),
    ],
)
def test_what_the_engine_itself_does_to_the_world_is_not_sent_twice(tools: Any, repeatable: bool) -> None:
    assert read(body(input="가", tools=tools), RESPONSES).repeatable is repeatable


@pytest.mark.parametrize("encoding", ["bytes", "bytes_only", 7, "x" * 100_000])
def test_formats_that_could_not_be_counted_are_refused(encoding: Any) -> None:
    with pytest.raises(InvalidField) as caught:
        read(body(input="가", encoding_format=encoding), EMBEDDINGS)
    assert caught.value.param == "encoding_format"
    assert len(caught.value.message("en")) < 400


OBJECT: dict[str, Any] = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/chat/completions", {"messages": [OBJECT, 5]}, "messages[1]"),
        ("/v1/chat/completions", {"messages": "가"}, "messages"),
        ("/v1/chat/completions", {"messages": [OBJECT] * 8193}, "messages"),
        ("/v1/chat/completions", {"messages": [OBJECT], "tools": {}}, "tools"),
        ("/v1/chat/completions", {"messages": [OBJECT], "tools": [OBJECT] * 513}, "tools"),
        ("/v1/responses", {"input": [OBJECT, "가"]}, "input[1]"),
        ("/v1/responses", {"input": 5}, "input"),
        ("/v1/responses", {"input": [OBJECT] * 2049}, "input"),
        ("/v1/responses", {"input": "가", "tools": [{"type": 5}]}, "tools[0].type"),
        ("/v1/messages", {"messages": [None]}, "messages[0]"),
        ("/v1/messages/count_tokens", {"messages": {}}, "messages"),
        ("/tokenize", {"messages": [[]]}, "messages[0]"),
        ("/v1/completions", {"prompt": ["가"] * 2049}, "prompt"),
        ("/v1/embeddings", {"input": [[1]] * 2049}, "input"),
        ("/rerank", {"query": "가", "documents": ["나"] * 2049}, "documents"),
        ("/score", {"queries": "가", "items": [OBJECT] * 2049}, "items"),
        ("/v1/chat/completions", {"messages": [OBJECT], "n": 129}, "n"),
    ],
)
def test_what_would_keep_an_engine_busy_with_complaining_is_refused(path: str, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidField) as caught:
        read(body(**fields), AT[path])
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {"messages": [OBJECT] * 8192, "tools": None}),
        ("/v1/completions", {"prompt": list(range(9000))}),
        ("/v1/completions", {"prompt": ["가"] * 2048}),
        ("/v1/embeddings", {"input": list(range(9000))}),
        ("/v1/responses", {"input": [OBJECT] * 2048, "tools": []}),
    ],
)
def test_long_is_not_too_long(path: str, fields: dict[str, Any]) -> None:
    assert read(body(**fields), AT[path]).model == "m"
