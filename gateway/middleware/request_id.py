"""Gives every request an id of ours: in the scope for whoever needs it, and in `x-request-id` of every answer."""

from __future__ import annotations

import uuid

from gateway.protocol.asgi import REQUEST_ID, App, Message, Receive, Scope, Send


class RequestId:
    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = "req_" + uuid.uuid4().hex
        scope[REQUEST_ID] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        await self._app(scope, receive, send_with_id)
