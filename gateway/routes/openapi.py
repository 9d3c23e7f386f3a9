"""The OpenAPI description of what FastAPI does not know: the raw inference endpoints, and that every /v1 route wants a key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

_KEY = "key"
_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}
_ERRORS = {
    "400": "Malformed, or refused by the model",
    "401": "No valid API key",
    "403": "This key may not use the model",
    "404": "No such model",
    "413": "Body too large",
    "502": "The model's server broke off",
    "503": "Full; Retry-After says when to come back",
    "504": "The model's server is too slow",
}


def describe(app: FastAPI, inference_paths: Sequence[str]) -> None:
    """Let `app.openapi()`, and so /docs, tell of the inference endpoints too."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            schema["paths"] |= {path: {"post": _inference(path)} for path in inference_paths}
            schema.setdefault("components", {})["securitySchemes"] = {_KEY: {"type": "http", "scheme": "bearer"}}
            for path, operations in schema["paths"].items():
                for operation in operations.values() if path.startswith("/v1") else ():
                    operation["security"] = [{_KEY: []}]
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _inference(path: str) -> dict[str, Any]:
    body = {
        "type": "object",
        "required": ["model"],
        "properties": {"model": {"type": "string"}, "stream": {"type": "boolean", "default": False}},
        "additionalProperties": True,
    }
    errors = {
        status: {"description": text, "content": {"application/json": {"schema": _ERROR}}} for status, text in _ERRORS.items()
    }
    return {
        "tags": ["inference"],
        "summary": f"{path.removeprefix('/v1/')} as in OpenAI's API; other fields pass to the engine as they are",
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {
                "description": "The engine's answer; with stream, server-sent events",
                "content": {
                    "application/json": {"schema": {"type": "object"}},
                    "text/event-stream": {"schema": {"type": "string"}},
                },
            },
            **errors,
        },
    }
