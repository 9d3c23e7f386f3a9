"""Errors as FastAPI's routes answer them: in OpenAI's shape, in the client's language."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from gateway.call_error import CallError
from gateway.errors import InvalidField, MalformedJson, MethodNotAllowed, NotFound
from gateway.protocol.language import preferred


def add_to(app: FastAPI) -> None:
    app.add_exception_handler(CallError, _answer_call_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)


async def _answer_call_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, CallError):
        raise TypeError(f"not a CallError: {error!r}")
    headers = {name.decode(): value.decode() for name, value in error.headers()}
    body = error.body(preferred(request.headers.get("accept-language", "")))
    return Response(body, error.status, headers, "application/json")


async def _answer_http_error(request: Request, error: Exception) -> Response:
    """What FastAPI says of an address, a method or a body that it cannot use, in OpenAI's shape."""
    if isinstance(error.__cause__, CallError):  # ours, raised while it read a body
        return await _answer_call_error(request, error.__cause__)
    if isinstance(error, HTTPException) and error.status_code == 405:
        answer = await _answer_call_error(request, MethodNotAllowed(path=request.url.path, method=request.method))
        answer.headers.update(error.headers or {})
        return answer
    if isinstance(error, HTTPException) and error.status_code == 400:
        return await _answer_call_error(request, MalformedJson(detail=error.detail))
    return await _answer_call_error(request, NotFound(path=request.url.path))


async def _answer_validation_error(request: Request, error: Exception) -> Response:
    """The first thing that is wrong with a request's body or query."""
    if not isinstance(error, RequestValidationError):
        raise TypeError(f"not a RequestValidationError: {error!r}")
    return await _answer_call_error(request, _refusal(error.errors()))


def _refusal(problems: Sequence[Any]) -> CallError:
    first = problems[0]
    if first["type"] == "json_invalid" or not first["loc"][1:]:
        return MalformedJson(detail=first.get("ctx", {}).get("error", first["msg"]))
    return InvalidField(param=".".join(map(str, first["loc"][1:])), detail=first["msg"][:1].lower() + first["msg"][1:])
