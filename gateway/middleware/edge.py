"""The outermost edge of every route but the raw ones: an id, a limit on the body, and one answer whatever happens."""

from __future__ import annotations

from gateway.call_error import CallError
from gateway.exchange import BodyLimits, Exchange
from gateway.protocol.asgi import App, Receive, Scope, Send


class Edge:
    def __init__(self, app: App, limits: BodyLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, self._limits)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except CallError as error:
            await exchange.refuse(error)
        except Exception:  # noqa: BLE001 - the one place where anything may arrive; it goes to the log with its traceback
            await exchange.fail()
