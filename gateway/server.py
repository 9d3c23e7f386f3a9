"""The HTTP server around the app: uvicorn on uvloop and httptools, with one thing that ASGI does not tell.

ASGI says that a client has left by a message, which a task reads a turn of the event loop later; uvicorn quietly drops what is
sent in between. Such a piece would be counted though nobody can ever get it. So the connection itself can be asked here.
"""

from __future__ import annotations

from pathlib import Path

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.app import create_app
from gateway.protocol.asgi import IS_CLOSING
from gateway.settings import GatewaySettings


class AskableConnection(HttpToolsProtocol):
    """Puts `transport.is_closing` into each request's scope."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {IS_CLOSING: self.transport.is_closing}  # type: ignore[dict-item]


def config(settings: GatewaySettings, state_dir: Path) -> uvicorn.Config:
    """How the gateway is served. Raises what `create_app` raises."""
    return uvicorn.Config(
        create_app(settings, state_dir),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=AskableConnection,
        lifespan="on",
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=int(settings.timeouts.shutdown_s),
    )


def run(settings: GatewaySettings, state_dir: Path) -> None:
    """Serve in the foreground until SIGINT or SIGTERM; streams may end before it returns."""
    uvicorn.Server(config(settings, state_dir)).run()
