"""The OpenAPI document tells of every address, inference included."""

from __future__ import annotations

import msgspec

from tests.fakes import Script
from tests.unit.gateway.house import House


async def test_document_has_every_route_and_says_which_want_a_key() -> None:
    document = msgspec.json.decode((await House(Script()).stranger.request("GET", "/openapi.json")).body)
    keyed = {path: "security" in operation for path, operations in document["paths"].items() for operation in operations.values()}
    assert keyed == {
        "/v1/chat/completions": True,
        "/v1/completions": True,
        "/v1/models": True,
        "/v1/models/{model}": True,
        "/health/live": False,
        "/health/ready": False,
    }


async def test_documented_errors_of_inference_are_those_of_the_contract() -> None:
    document = msgspec.json.decode((await House(Script()).stranger.request("GET", "/openapi.json")).body)
    answers = document["paths"]["/v1/chat/completions"]["post"]["responses"]
    assert set(answers) == {"200", "400", "401", "403", "404", "413", "502", "503", "504"}
