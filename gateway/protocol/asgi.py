"""ASGI messages for whole answers, and the few things read from a scope."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Protocol

from gateway.call_error import CallError, Language
from gateway.protocol.language import preferred

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUEST_ID = "daemun.request_id"
CONNECTION = "daemun.connection"


def header(scope: Scope, name: bytes) -> str:
    """The first header of that (lower-case) name, or an empty string. Bytes map to Latin-1, as HTTP has it."""
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    for key, value in headers:
        if key == name:
            return value.decode("latin-1")
    return ""


class ClientConnection(Protocol):
    """What our own server (`gateway.client_connection`) tells of a request's connection, beyond ASGI."""

    when_lost: Callable[[], object] | None
    """Called once, in the very moment in which the connection is lost."""

    @property
    def task(self) -> asyncio.Task[None] | None:
        """What runs the app for the request that is being answered."""
        ...

    def is_closing(self) -> bool:
        """Whether what is sent from now on goes nowhere."""
        ...

    def writer(self) -> Callable[[bytes], bool] | None:
        """Writes pieces of the answer's body without waiting, once the first one was sent; None if nothing is being answered.

        Says False, and does nothing, where the piece has to be sent in the usual way: the client does not read, or has left.
        """
        ...


def client_connection(scope: Scope) -> ClientConnection | None:
    """The connection below, where the server shows it."""
    extensions = scope.get("extensions")
    connection: ClientConnection | None = extensions.get(CONNECTION) if extensions else None
    return connection


def language(scope: Scope) -> Language:
    return preferred(header(scope, b"accept-language"))


async def send_json(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    start = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, scope: Scope, error: CallError) -> None:
    await send_json(send, error.status, error.body(language(scope)), error.headers())
