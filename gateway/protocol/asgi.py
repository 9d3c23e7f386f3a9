"""ASGI messages for whole answers, and the few things read from a scope."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gateway.errors import CallError, Language
from gateway.protocol.language import preferred

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUEST_ID = "daemun.request_id"
IS_CLOSING = "daemun.is_closing"


def header(scope: Scope, name: bytes) -> str:
    """The first header of that (lower-case) name, or an empty string. Bytes map to Latin-1, as HTTP has it."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return ""


def is_closing(scope: Scope) -> Callable[[], bool]:
    """Whether the client's connection is going down, where the server can tell (`gateway.server`); else always no."""
    asked: Callable[[], bool] = scope.get("extensions", {}).get(IS_CLOSING, lambda: False)
    return asked


def language(scope: Scope) -> Language:
    return preferred(header(scope, b"accept-language"))


async def send_json(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    start = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, scope: Scope, error: CallError) -> None:
    await send_json(send, error.status, error.body(language(scope)), error.headers())
