"""Every error of the contract, as a client reads it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.call_error import CallError
from gateway.protocol.credential import bearer
from tests.fakes import FakeClient, FakeLimits, Leaving, Received, Script
from tests.unit.gateway.house import MODEL, House

CHAT = "/v1/chat/completions"
GOOD = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "안녕"}]}).encode()
FULL = Script(pieces=(b"{}",), status=503, content_type="application/json")


def expect(received: Received, status: int, code: str, param: str | None = None) -> dict[str, Any]:
    assert received.status == status
    assert received.headers["content-type"] == "application/json"
    assert received.headers["x-request-id"].startswith("req_")
    assert int(received.headers["content-length"]) == len(received.body)
    error = received.error
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param)
    assert error["message"]
    assert received.ended
    return error


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"[]", None),
        (b"{}", "model"),
        (b'{"model":"m","stream_options":{"include_usage":7}}', "stream_options.include_usage"),
    ],
)
async def test_malformed_body_is_a_400_that_names_the_field(body: bytes, param: str | None) -> None:
    house = House(Script())
    expect(await house.client.post(CHAT, body), 400, "invalid_request", param)
    assert (house.entry.key_id, house.entry.model, house.entry.status) == ("key_anna", "", 400)
    assert (house.entry.outcome, house.entry.error_code) == ("rejected", "invalid_request")


@pytest.mark.parametrize("authorization", ["", "dm-anna", "Basic dm-anna", "Bearer", "Bearer  ", "Bearer dm-nobody"])
async def test_key_is_checked_before_the_body(authorization: str) -> None:
    house = House(Script())
    received = await house.stranger.post(CHAT, b"not json", authorization=authorization)
    error = expect(received, 401, "invalid_api_key")
    assert error["type"] == "authentication_error"
    assert received.headers["www-authenticate"] == "Bearer"


def test_bearer_is_read_as_the_standard_has_it() -> None:
    assert bearer("bearer  dm-1 ") == "dm-1"
    assert bearer("Basic dm-1") == bearer("") == ""


async def test_forbidden_model_is_told_from_an_unknown_one() -> None:
    house = House(Script())
    forbidden = await house.stranger.post(CHAT, GOOD, authorization="Bearer dm-bora")
    assert "other-model" in expect(forbidden, 403, "model_not_allowed", "model")["message"]
    unknown = await house.client.post(CHAT, b'{"model":"gpt-9"}')
    message = expect(unknown, 404, "model_not_found", "model")["message"]
    assert "gpt-9" in message
    assert f"{MODEL}, other-model" in message
    assert [(entry.outcome, entry.status) for entry in house.ledger.entries] == [("rejected", 403), ("rejected", 404)]


async def test_names_in_requests_cannot_break_messages() -> None:
    name = "{model}{0}%s\"'"
    unknown = await House(Script()).client.post(CHAT, json.dumps({"model": name}).encode())
    assert name in expect(unknown, 404, "model_not_found", "model")["message"]


@pytest.mark.parametrize("announced", [True, False])
async def test_large_body_is_refused_as_soon_as_it_is_known(announced: bool) -> None:
    house = House(Script())
    pieces = [b" " * 1000] * 5
    client = FakeClient(house.app, authorization="Bearer dm-anna", **({"content_length": "9000"} if announced else {}))
    received = await client.request("POST", CHAT, pieces)
    limit = "8192" if announced else "4096"
    assert limit in expect(received, 413, "request_too_large")["message"]


async def test_images_may_be_larger_than_text() -> None:
    house = House(Script(pieces=(b"{}",), content_type="application/json"))
    image = b'{"model": "daemun-demo", "messages": [{"content": [{"type": "image_url", "image_url": {"url": "data:%b"}}]}]}'
    for size, status in ((7000, 200), (8200, 413)):
        pieces = [image[:60], image[60:] % (b"A" * size)]
        assert (await house.client.request("POST", CHAT, pieces)).status == status


async def test_strangers_cannot_upload() -> None:
    """Their key is looked at before their body is read."""
    house = House(Script())
    unread = [b" " * 1000] * 5
    received = await house.stranger.request("POST", CHAT, unread, content_length="5000")
    assert (received.status, house.upstream.calls) == (401, [])


async def test_body_of_exactly_the_limit_passes() -> None:
    house = House(Script(pieces=(b"{}",), content_type="application/json"))
    body = GOOD + b" " * (4096 - len(GOOD))
    assert (await house.client.post(CHAT, body, content_length="4096")).status == 200


async def test_full_queue_is_a_503_with_an_honest_time() -> None:
    house = House(Script(), places=0, most_waiting=0)
    received = await house.client.post(CHAT, GOOD)
    assert "120" in expect(received, 503, "server_overloaded")["message"]
    assert received.headers["retry-after"] == "120"
    assert (house.entry.outcome, house.entry.error_code, house.entry.queue_s) == ("rejected", "server_overloaded", None)


async def test_patience_that_ran_out_is_a_503_too() -> None:
    house = House(Script(), places=0)
    received = await house.client.post(CHAT, GOOD)
    expect(received, 503, "queue_timeout")
    assert int(received.headers["retry-after"]) >= 1
    assert house.entry.duration_s == pytest.approx(120)
    assert house.has_given_everything_back()


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (Script(head="refused"), 502, "upstream_unreachable"),
        (Script(head="reset"), 502, "upstream_unreachable"),
        (Script(head="hangs"), 504, "upstream_timeout"),
        (Script(pieces=(b"oops",), status=500), 502, "upstream_failed"),
        (Script(status=302), 502, "upstream_failed"),
        (Script(pieces=(b'{"cut', b"off"), end="reset"), 502, "upstream_unreachable"),
        (Script(end="hangs"), 504, "upstream_timeout"),
    ],
)
async def test_failing_engine_is_not_the_clients_fault(script: Script, status: int, code: str) -> None:
    house = House(script)
    assert expect(await house.client.post(CHAT, GOOD), status, code)["type"] == "upstream_error"
    assert (house.entry.outcome, house.entry.error_code) == ("failed", code)
    assert house.has_given_everything_back()


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_engines_refusal_keeps_its_reason_and_field(status: int) -> None:
    reason = {"error": {"message": "최대 길이 {2048}을 넘습니다.", "type": "BadRequestError", "param": "messages", "code": 400}}
    house = House(Script(pieces=(json.dumps(reason).encode(),), status=status, content_type="application/json"))
    error = expect(await house.client.post(CHAT, GOOD), 400, "invalid_request", "messages")
    assert "최대 길이 {2048}을 넘습니다." in error["message"]
    assert (house.entry.outcome, house.entry.status) == ("rejected", 400)
    assert house.fleet.broken == []


async def test_engines_validation_report_becomes_one_line() -> None:
    """As vLLM 0.29 answers a chat request without messages."""
    report = "1 validation error:\n  {'type': 'missing', 'loc': ('body', 'messages'), 'msg': 'Field required'}"
    reason = {"error": {"message": report, "type": "Bad Request", "param": "body.messages", "code": 400}}
    house = House(Script(pieces=(json.dumps(reason).encode(),), status=400))
    error = expect(await house.client.post(CHAT, GOOD), 400, "invalid_request", "messages")
    assert error["message"] == "The model cannot take this request: messages: Field required"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (404, {"detail": "Not Found"}),
        (405, {"detail": "Method Not Allowed"}),
        (
            501,
            {"error": {"message": "The model does not support Rerank (Score) API", "type": "NotImplementedError", "code": 501}},
        ),
    ],
)
async def test_address_of_another_kind_of_model_is_the_clients_mistake(status: int, reason: dict[str, Any]) -> None:
    house = House(Script(pieces=(json.dumps(reason).encode(),), status=status))
    error = expect(await house.client.post("/v1/rerank", GOOD), 400, "invalid_request", "model")
    assert "/v1/rerank" in error["message"]
    assert house.entry.outcome == "rejected"


async def test_anthropics_refusals_are_understood_too() -> None:
    reason = {"type": "error", "error": {"type": "BadRequestError", "message": "Input length (9) exceeds\nthe maximum (5)."}}
    house = House(Script(pieces=(json.dumps(reason).encode(),), status=400))
    error = expect(await house.client.post("/v1/messages", GOOD), 400, "invalid_request")
    assert error["message"] == "The model cannot take this request: Input length (9) exceeds the maximum (5)."


async def test_errors_have_anthropics_shape_as_well_as_openais() -> None:
    received = await House(Script()).stranger.post("/v1/messages", GOOD)
    body = json.loads(received.body)
    assert body["type"] == "error"
    assert (body["error"]["type"], body["error"]["code"]) == ("authentication_error", "invalid_api_key")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x_api_key": "dm-anna"}, 200),
        ({"x_api_key": " dm-anna "}, 200),
        ({"x_api_key": "dm-nobody"}, 401),
        ({"x_api_key": ""}, 401),
        ({"authorization": "Bearer dm-anna", "x_api_key": "dm-nobody"}, 200),
        ({"authorization": "Bearer dm-nobody", "x_api_key": "dm-anna"}, 401),
        ({"authorization": "Basic xyz", "x_api_key": "dm-anna"}, 200),
    ],
)
async def test_key_may_come_as_anthropics_clients_send_it(headers: dict[str, str], status: int) -> None:
    house = House(Script(pieces=(b"{}",), content_type="application/json"))
    client = FakeClient(house.app, **headers)
    assert (await client.post(CHAT, GOOD)).status == status
    assert (await client.request("GET", "/v1/models")).status == status


async def test_operators_field_is_a_400_that_names_it_and_leaves_an_entry() -> None:
    house = House(Script())
    body = json.dumps({"model": MODEL, "cache_salt": "x"}).encode()
    for path in (CHAT, "/v1/messages", "/v1/embeddings"):
        assert "operator" in expect(await house.client.post(path, body), 400, "invalid_request", "cache_salt")["message"]
    korean = await house.client.post(CHAT, body, accept_language="ko")
    assert "운영자" in expect(korean, 400, "invalid_request", "cache_salt")["message"]
    assert {entry.outcome for entry in house.ledger.entries} == {"rejected"}
    assert house.upstream.calls == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")],
)
async def test_answers_of_the_past_are_not_found_and_it_says_why(method: str, path: str) -> None:
    house = House(Script())
    error = expect(await house.client.request(method, f"/v1/responses/resp_1{path}"), 404, "not_found")
    assert "not kept" in error["message"]
    expect(await house.stranger.request(method, f"/v1/responses/resp_1{path}"), 401, "invalid_api_key")


@pytest.mark.parametrize("reason", [b"", b"<html>", b'{"detail":"x"}', b'{"error":"text"}', b'{"error":{"message":7}}'])
async def test_refusal_without_a_reason_is_still_a_400(reason: bytes) -> None:
    house = House(Script(pieces=(reason,), status=400))
    expect(await house.client.post(CHAT, GOOD), 400, "invalid_request")


async def test_limits_refusal_is_answered_before_a_place_is_taken() -> None:
    class Empty(CallError):
        status, code, type = 429, "rate_limit_exceeded", "rate_limit_error"
        en = ko = "{detail}"

    house = House(Script(), limits=FakeLimits(refuses=Empty(detail="slow down", retry_after_s=2.1)))
    received = await house.client.post(CHAT, GOOD)
    expect(received, 429, "rate_limit_exceeded")
    assert received.headers["retry-after"] == "3"
    assert (house.entry.outcome, house.entry.queue_s) == ("rejected", None)


async def test_messages_are_korean_where_the_client_reads_korean() -> None:
    house = House(Script(), places=0, most_waiting=0)
    for path, body, word in [(CHAT, GOOD, "자리"), (CHAT, b"{}", "'model'"), (CHAT, b"", "JSON"), ("/v2", GOOD, "/v2")]:
        message = (await house.client.post(path, body, accept_language="ko-KR,ko;q=0.9,en;q=0.8")).error["message"]
        assert word in message
        assert any("가" <= letter <= "힣" for letter in message)


async def test_unknown_address_and_wrong_method_are_answered_in_the_same_shape() -> None:
    client = FakeClient(House(Script()).app)
    expect(await client.request("GET", "/v1/nothing"), 404, "not_found")
    wrong = await client.request("GET", CHAT)
    assert "GET" in expect(wrong, 405, "method_not_allowed")["message"]
    assert wrong.headers["allow"] == "POST"
    expect(await client.request("DELETE", "/v1/models"), 405, "method_not_allowed")


async def test_fault_of_ours_is_a_500_that_names_the_request(caplog: pytest.LogCaptureFixture) -> None:
    house = House(Script(), limits=FakeLimits(refuses=ZeroDivisionError()))  # type: ignore[arg-type]
    received = await house.client.post(CHAT, GOOD)
    message = expect(received, 500, "internal_error")["message"]
    assert received.headers["x-request-id"] in message
    assert received.headers["x-request-id"] in caplog.text
    assert "dm-anna" not in caplog.text
    assert (house.entry.outcome, house.entry.error_code, house.entry.status) == ("failed", "internal_error", 500)


async def test_request_ids_differ_and_go_into_the_ledger_and_to_the_engine() -> None:
    house = House(Script(pieces=(b"{}",), content_type="application/json"))
    ids = [(await house.client.post(CHAT, GOOD)).headers["x-request-id"] for _ in range(3)]
    assert len(set(ids)) == 3
    assert [entry.id for entry in house.ledger.entries] == [call[3] for call in house.upstream.calls] == ids


async def test_client_that_leaves_before_its_body_is_whole_leaves_no_trace() -> None:
    house = House(Script())
    received = await house.client.request("POST", CHAT, (), Leaving(after_messages=0))
    assert received.messages == []
    assert house.ledger.entries == []


def _leaves(error: type[CallError]) -> list[type[CallError]]:
    return [error] + [leaf for child in error.__subclasses__() for leaf in _leaves(child)]


def test_every_error_speaks_both_languages() -> None:
    ours = [error for error in _leaves(CallError) if error.__module__.startswith("gateway.")]
    assert len(ours) > 30
    for error in ours:
        assert ("en" in vars(error)) is ("ko" in vars(error)), error
        if "ko" in vars(error):
            assert any("가" <= letter <= "힣" for letter in error.ko) or error.ko == error.en == "{detail}", error
        if not error.__subclasses__():
            assert error.en
            assert error.code
            assert 400 <= error.status < 600
