"""The outermost edge: whatever nobody foresaw becomes one answer in OpenAI's shape and one line with a traceback in the log."""

from __future__ import annotations

import logging

from gateway.errors import CallError, InternalError
from gateway.protocol.asgi import REQUEST_ID, App, Message, Receive, Scope, Send, send_error

log = logging.getLogger(__name__)


class Edge:
    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except CallError as error:
            await self._answer(scope, send, error, started)
        except Exception:  # the one place where anything may arrive
            log.exception("%s %s failed", scope.get(REQUEST_ID), scope["path"])
            await self._answer(scope, send, InternalError(request_id=scope.get(REQUEST_ID)), started)

    async def _answer(self, scope: Scope, send: Send, error: CallError, started: bool) -> None:
        if started:  # a second head cannot be sent; ending without the body's end makes the server cut the connection
            return
        await send_error(send, scope, error)
