"""The OpenAPI document: valid, complete, and true to what the gateway reads and answers."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import msgspec
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31

from gateway.call_error import CallError
from gateway.protocol.endpoint import ENDPOINTS
from gateway.protocol.fields import HEADS, OPERATOR_ONLY
from gateway.protocol.openai import read
from tests.fakes import Script
from tests.unit.gateway.house import MODEL, House

CONTRACT = {"200", "400", "401", "403", "404", "408", "413", "429", "431", "500", "502", "503", "504"}


async def document() -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode((await House(Script()).stranger.request("GET", "/openapi.json")).body)
    return decoded


def subschemas(value: Any) -> list[Any]:
    """Every schema that stands anywhere in a document, and every one that a name stands for."""
    if isinstance(value, list):
        return [found for item in value for found in subschemas(item)]
    if not isinstance(value, dict):
        return []
    here = [value["schema"]] if isinstance(value.get("schema"), dict) else []
    return here + [found for item in value.values() for found in subschemas(item)]


async def test_document_is_valid() -> None:
    described = await document()
    jsonschema_rs.validate(OPENAPI_31, described)
    schemas = subschemas(described) + list(described["components"]["schemas"].values())
    assert len(schemas) > 30
    for schema in schemas:
        jsonschema_rs.meta.validate(schema)


async def test_every_reference_leads_somewhere_and_nothing_is_left_over() -> None:
    described = await document()
    text = msgspec.json.encode(described).decode()
    for kind in ("schemas", "responses", "headers"):
        for name in described["components"][kind]:
            assert f'"#/components/{kind}/{name}"' in text
    for reference in {part.split('"')[0] for part in text.split('"$ref":"#/')[1:]}:
        at: Any = described
        for step in reference.split("/"):
            at = at[step]


async def test_document_has_every_route_and_says_which_want_a_key() -> None:
    keyed = {
        path: operation.get("security")
        for path, operations in (await document())["paths"].items()
        for operation in operations.values()
    }
    either: list[dict[str, Any]] = [{"bearer": []}, {"x-api-key": []}]
    api = dict.fromkeys([*(endpoint.path for endpoint in ENDPOINTS), "/v1/models", "/v1/models/{model}", "/v1/usage"], either)
    assert keyed == api | dict.fromkeys(["/health/live", "/health/ready"])


async def test_every_route_can_be_named_and_is_told_in_two_languages() -> None:
    operations = [operation for path in (await document())["paths"].values() for operation in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for operation in operations:
        if "security" in operation:
            english, _, korean = operation["summary"].partition(" · ")
            assert english.isascii()
            assert any("가" <= letter <= "힣" for letter in korean)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.path)
async def test_documented_answers_of_inference_are_those_of_the_contract(endpoint: Any) -> None:
    described = await document()
    answers = described["paths"][endpoint.path]["post"]["responses"]
    assert set(answers) == CONTRACT
    assert ("text/event-stream" in answers["200"]["content"]) is (endpoint.stream is not None)
    for status in ("429", "503"):
        assert "retry-after" in described["components"]["responses"][f"Error{status}"]["headers"]


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.path)
async def test_example_of_each_request_is_one_that_is_read(endpoint: Any) -> None:
    described = await document()
    body = described["paths"][endpoint.path]["post"]["requestBody"]["content"]["application/json"]
    request = read(msgspec.json.encode(body["example"]), endpoint)
    assert (request.model, bool(request.prompt)) == (MODEL, True)
    jsonschema_rs.validate(body["schema"] | {"components": described["components"]}, body["example"])


async def test_requests_name_the_operators_fields_and_why_they_are_not_the_clients() -> None:
    schemas = (await document())["components"]["schemas"]
    for head in HEADS.values():
        fields = schemas[head.__name__]["properties"]
        assert list(fields)[-len(OPERATOR_ONLY) :] == sorted(OPERATOR_ONLY)
        for name in OPERATOR_ONLY:
            assert fields[name]["type"] == "null"
            assert "leave it out" in fields[name]["description"]
            assert len(fields[name]["description"]) > 80


async def test_errors_are_as_described() -> None:
    described = await document()
    error = {"$ref": "#/components/schemas/Error", "components": described["components"]}
    house = House(Script())
    for received in (
        await house.stranger.post("/v1/messages", b"{}"),
        await house.client.post("/v1/responses", b"{}"),
        await house.client.post("/v1/score", b'{"model":"none"}'),
        await house.client.request("GET", "/v1/models/none"),
    ):
        jsonschema_rs.validate(error, msgspec.json.decode(received.body))
        assert "x-request-id" in received.headers
    known = {str(status) for status in _statuses(CallError)}
    assert known - {"405"} == CONTRACT - {"200"}  # 405 is no answer of an address


def _statuses(error: type[CallError]) -> set[int]:
    own = {error.status} if "status" in vars(error) and error.__module__ == "gateway.errors" else set()
    return own.union(*(_statuses(child) for child in error.__subclasses__()))
