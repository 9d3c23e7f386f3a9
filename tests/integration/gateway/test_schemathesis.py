"""Calls made from our own OpenAPI document, right ones and wrong ones: every answer is one that the document tells of.

Against the whole gateway over sockets, in front of a scripted engine that answers every API alike.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from tests.integration.gateway.conftest import MODEL, Running
from tests.loopback import says

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
CASES = 12  # of each operation and mode


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("known", [True, False], ids=["known model", "any model"])
def test_every_answer_is_one_that_the_document_tells_of(running: Running, known: bool, mode: GenerationMode) -> None:
    running.engine.script = says(b'{"id":"1","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}')
    document = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
    tried = 0

    operations: Any = (result.ok() for result in document.get_all_operations())  # type: ignore[union-attr]  # it is our own
    for operation in operations:

        @settings(max_examples=CASES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy(generation_mode=mode))
        def call(case: Any) -> None:
            nonlocal tried
            tried += 1
            if known and isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
                case.body["model"] = MODEL
            case.call_and_validate(checks=CHECKS, headers={"Authorization": f"Bearer {running.key}"}, timeout=20)

        with suppress(Unsatisfiable):  # where there is nothing to get wrong
            call()
    assert tried > CASES * 10
