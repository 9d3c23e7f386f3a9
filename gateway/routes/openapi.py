"""The OpenAPI description of what FastAPI does not know: the engine's endpoints, errors, headers, and how keys are sent.

Request schemas are made from the very types that read requests (`gateway.protocol.fields`), so they cannot say anything else.
Summaries are in English and Korean.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from gateway.protocol.endpoint import ENDPOINTS, Api, Endpoint
from gateway.protocol.fields import HEADS, OPERATOR_ONLY

Schema = dict[str, Any]

_DESCRIPTION = """
One address for all models, for clients of OpenAI's and of Anthropic's API. Whatever a request has beyond the fields below
passes to the engine (vLLM) as it is: tools, response_format, logprobs, images, and vLLM's own sampling parameters.

OpenAI와 Anthropic 클라이언트를 그대로 쓸 수 있습니다. 아래에 없는 필드(tools, response_format, logprobs, 이미지 등)는
그대로 엔진(vLLM)에 전달됩니다.

**Fields that only the operator may set** are refused with a 400 that names them · **운영자만 정할 수 있는 필드**는 400으로
거절됩니다: {operator_only}.

**Responses are not stored** · **응답은 저장되지 않습니다**: `store` has no effect; `previous_response_id`, `conversation` and
`background: true` are refused. Send the whole conversation in `input`.

**Errors** have OpenAI's shape, and Anthropic's at once. Their messages are in Korean if `Accept-Language` prefers it ·
`Accept-Language: ko`이면 오류 메시지가 한국어입니다.

**While a stream waits for its place** it gets SSE comments, `: daemun position=3 expected_wait_s=12`, which clients skip and a
chat page can show; what goes wrong after the first one is an `error` event. `service_tier` asks for another tier than the key's
own, never for a better one; `models` names where the call may go if `model` is full · 스트리밍 요청이 기다리는 동안 위와 같은
SSE 주석으로 순번과 예상 시간을 알려 줍니다.

**Every answer** has `x-request-id`; with it the operator finds the call · 모든 응답의 `x-request-id`로 호출을 찾을 수 있습니다.
"""
_ERRORS = {
    "400": "Malformed, a field that may not be sent, or refused by the model · 잘못된 요청",
    "401": "No valid API key · 유효한 키 없음",
    "403": "This key may not use the model · 이 키로 쓸 수 없는 모델",
    "404": "No such model; the message lists those that there are · 없는 모델",
    "408": "The request did not come in whole in time · 요청이 제시간에 도착하지 않음",
    "413": "Body too large · 본문이 너무 큼",
    "429": "Your own limit; `Retry-After` says when to come back, `insufficient_quota` that it will not help · 사용 한도 초과",
    "431": "Headers too large · 헤더가 너무 큼",
    "500": "A fault of the gateway · 게이트웨이 오류",
    "502": "The model's server broke off or failed · 모델 서버 오류",
    "503": "We are full; `Retry-After` says when to come back · 자리가 없음",
    "504": "The model's server is too slow · 모델 서버 시간 초과",
}
_REQUIRED_BY_ENGINE: dict[Api, tuple[str, ...]] = {
    Api.CHAT: ("messages",),
    Api.COMPLETIONS: ("prompt",),
    Api.RESPONSES: ("input",),
    Api.MESSAGES: ("messages", "max_tokens"),
    Api.COUNT_TOKENS: ("messages",),
    Api.RERANK: ("query", "documents"),
    Api.DETOKENIZE: ("tokens",),
}
_QUESTION = [{"role": "user", "content": "대문이 뭐예요?"}]
_EXAMPLES: dict[Api, Schema] = {
    Api.CHAT: {"messages": _QUESTION, "max_tokens": 100},
    Api.COMPLETIONS: {"prompt": "대문은", "max_tokens": 100},
    Api.RESPONSES: {"input": "대문이 뭐예요?", "max_output_tokens": 100},
    Api.MESSAGES: {"messages": _QUESTION, "max_tokens": 100},
    Api.COUNT_TOKENS: {"messages": _QUESTION},
    Api.EMBEDDINGS: {"input": ["대문이 뭐예요?", "대문은 GPU를 나누어 씁니다."]},
    Api.SCORE: {"queries": "대문이 뭐예요?", "documents": ["대문은 GPU를 나누어 씁니다.", "오늘은 맑습니다."]},
    Api.RERANK: {"query": "대문이 뭐예요?", "documents": ["대문은 GPU를 나누어 씁니다.", "오늘은 맑습니다."]},
    Api.TOKENIZE: {"prompt": "대문이 뭐예요?"},
    Api.DETOKENIZE: {"tokens": [10, 11, 12]},
}
_OF_MODELS = ("401", "404")
_OF_OTHERS = {"/v1/usage": ("400", "401", "503")}
_RETRY_AFTER = {"429", "503"}
_ON_ANSWERS = {
    "x-request-id": "RequestId",
    "x-daemun-service-tier": "ServiceTier",
    "x-daemun-queue-position": "QueuePosition",
    "x-daemun-output-cap": "OutputCap",
    "x-daemun-model-used": "ModelUsed",
}
_KEYS: list[dict[str, list[str]]] = [{"bearer": []}, {"x-api-key": []}]
_REF = "#/components/schemas/{name}"
_TEXT = {"type": "string"}

_COMPONENTS: Schema = {
    "securitySchemes": {
        "bearer": {"type": "http", "scheme": "bearer", "description": "As OpenAI's clients send it."},
        "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "As Anthropic's clients send it."},
    },
    "headers": {
        "RequestId": {"description": "Names this call in the operator's ledger and logs.", "schema": _TEXT},
        "RetryAfter": {
            "description": "Seconds after which to try again, computed from how fast calls end now.",
            "schema": {"type": "integer", "minimum": 1},
        },
        "ServiceTier": {
            "description": "The tier that the call was served in.",
            "schema": {"enum": ["reserved", "paid", "free", "batch"]},
        },
        "QueuePosition": {
            "description": "Where the call began to wait, or stood when its patience ended; absent where it did not wait.",
            "schema": {"type": "integer", "minimum": 1},
        },
        "OutputCap": {
            "description": "The most tokens of output that this call got, because we are overloaded; else absent.",
            "schema": {"type": "integer", "minimum": 1},
        },
        "ModelUsed": {
            "description": "The model that answered: a fall-back because `model` was full, or the version of one that has a "
            "rollout; else absent.",
            "schema": _TEXT,
        },
    },
    "parameters": {
        "MaxWait": {
            "name": "x-daemun-max-wait-s",
            "in": "header",
            "required": False,
            "description": "The call's longest wait for a place, in seconds. More than the settings allow has no effect.",
            "schema": {"type": "number", "minimum": 0},
        }
    },
    "responses": {},
}
_ERROR: Schema = {
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "What is wrong and what to do about it."},
                "type": _TEXT,
                "param": {"type": ["string", "null"], "description": "The field that is wrong."},
                "code": {"type": "string", "description": "Stable; for programs."},
            },
        },
    },
}


def describe(app: FastAPI) -> None:
    """Let `app.openapi()`, and so /docs, tell all."""

    def openapi() -> Schema:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _document(app: FastAPI) -> Schema:
    description = _DESCRIPTION.format(operator_only=", ".join(f"`{name}`" for name in sorted(OPERATOR_ONLY)))
    document = get_openapi(title=app.title, version=app.version, description=description, routes=app.routes)
    paths = {endpoint.path: {"post": _operation(endpoint)} for endpoint in ENDPOINTS}
    document["paths"] = paths | {path: _with_key(path, item) for path, item in document["paths"].items()}
    components = document["components"]
    # Nothing is validated by FastAPI here, so nobody ever gets its own error.
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    components["schemas"] |= _requests() | {"Error": _ERROR}
    components |= _COMPONENTS | {"responses": {_name(status): _error(status) for status in _ERRORS}}
    return document


def _operation(endpoint: Endpoint) -> Schema:
    content: Schema = {"application/json": {"schema": {"type": "object"}}}
    if endpoint.stream is not None:
        content["text/event-stream"] = {"schema": _TEXT}
    return {
        "tags": ["inference"],
        "operationId": endpoint.path.strip("/").replace("/", "_"),
        "summary": f"{endpoint.summary} · {endpoint.summary_ko}",
        "security": _KEYS,
        "parameters": [{"$ref": "#/components/parameters/MaxWait"}],
        "requestBody": {"required": True, "content": {"application/json": _body(endpoint.api)}},
        "responses": {
            "200": {
                "description": "The engine's answer" + ("; with `stream`, server-sent events" if endpoint.stream else ""),
                "headers": {name: {"$ref": f"#/components/headers/{component}"} for name, component in _ON_ANSWERS.items()},
                "content": content,
            },
            **_errors(_ERRORS),
        },
    }


def _body(api: Api) -> Schema:
    return {"schema": _ref(HEADS[api].__name__), "example": {"model": "daemun-demo"} | _EXAMPLES[api]}


def _with_key(path: str, item: Schema) -> Schema:
    """What FastAPI says of a route, with what it does not know: the key, errors in our shape, and the header."""
    for operation in item.values():
        answers = operation["responses"]
        answers.pop("422", None)
        if path.startswith("/v1/"):
            operation["security"] = _KEYS
            answers |= _errors(_OF_OTHERS.get(path, _OF_MODELS))
        answers["200"].setdefault("headers", {"x-request-id": {"$ref": "#/components/headers/RequestId"}})
    return item


def _requests() -> Schema:
    """The schema of each API's requests, by the name of the type that reads them."""
    _, schemas = msgspec.json.schema_components(HEADS.values(), ref_template=_REF)
    for api, head in HEADS.items():
        _complete(schemas[head.__name__], api)
    return schemas


def _complete(schema: Schema, api: Api) -> None:
    """With what the type does not say: whose a field is, and what the engine insists on. The operator's fields come last."""
    fields = schema["properties"]
    for name in sorted(OPERATOR_ONLY):
        field = fields[name] = fields.pop(name)
        field["description"] = f"The operator's alone: leave it out. · 운영자 전용: 빼고 보내세요. {field['description']}"
    schema["required"] += _REQUIRED_BY_ENGINE.get(api, ())
    schema["description"] = "All other fields pass to the engine as they are. · 다른 필드는 그대로 엔진에 전달됩니다."
    schema["additionalProperties"] = True


def _errors(statuses: Iterable[str]) -> Schema:
    return {status: {"$ref": f"#/components/responses/{_name(status)}"} for status in statuses}


def _error(status: str) -> Schema:
    headers = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}
    if status in _RETRY_AFTER:
        headers["retry-after"] = {"$ref": "#/components/headers/RetryAfter"}
    if status == "503":
        headers["x-daemun-queue-position"] = {"$ref": "#/components/headers/QueuePosition"}
    return {
        "description": _ERRORS[status],
        "headers": headers,
        "content": {"application/json": {"schema": _ref("Error")}},
    }


def _name(status: str) -> str:
    return f"Error{status}"


def _ref(name: str) -> Schema:
    return {"$ref": _REF.format(name=name)}
