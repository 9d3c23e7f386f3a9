"""Refuses request bodies over a limit: by their Content-Length where there is one, else as soon as too much has come."""

from __future__ import annotations

from gateway.errors import RequestTooLarge
from gateway.protocol.asgi import App, Message, Receive, Scope, Send, header


class BodyLimit:
    """Raises RequestTooLarge; `gateway.middleware.edge` answers it."""

    def __init__(self, app: App, limit_bytes: int) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = header(scope, b"content-length")
        if announced.isdigit() and int(announced) > self._limit_bytes:
            raise RequestTooLarge(limit_bytes=self._limit_bytes)
        came = 0

        async def limited() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > self._limit_bytes:
                raise RequestTooLarge(limit_bytes=self._limit_bytes)
            return message

        await self._app(scope, limited, send)
