"""The HTTP server around the app: uvicorn's sockets, signals and lifespan on uvloop, with our own protocol for connections."""

from __future__ import annotations

import asyncio
import gc
import socket
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from gateway.app import Gateway, create_app
from gateway.client_connection import ClientConnection, Connections
from gateway.settings import GatewaySettings

_BACKLOG = 4096
_AFTER_HAND_BACK_S = 2


class Server(uvicorn.Server):
    """Handed-back calls: what still runs when `shutdown_s` is over ends with a word to its client."""

    def __init__(self, app: Gateway, settings: GatewaySettings) -> None:
        self._shutdown_s = settings.timeouts.shutdown_s
        self._app = app
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                loop="uvloop",
                http=partial(_connection, Connections(settings.clients)),  # type: ignore[arg-type]  # it is only called
                lifespan="on",
                backlog=_BACKLOG,
                proxy_headers=False,
                log_config=None,
                timeout_graceful_shutdown=int(self._shutdown_s) + _AFTER_HAND_BACK_S,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        hand_back = asyncio.get_running_loop().call_later(self._shutdown_s, self._app.running.hand_back)
        try:
            await super().shutdown(sockets)
        finally:
            hand_back.cancel()


def _connection(
    connections: Connections,
    config: uvicorn.Config,
    server_state: ServerState,
    app_state: dict[str, Any],
    _loop: asyncio.AbstractEventLoop | None = None,
) -> ClientConnection:
    """What uvicorn calls for each new connection; it ends those in its own set when it stops."""
    server_state.connections = connections.open  # type: ignore[assignment]
    return ClientConnection(config.loaded_app, connections, server_state.tasks, app_state)


def server(settings: GatewaySettings, state_dir: Path) -> Server:
    """The gateway, ready to be run. Raises what `create_app` raises."""
    return Server(create_app(settings, state_dir), settings)


def run(settings: GatewaySettings, state_dir: Path) -> None:
    """Serve in the foreground until SIGINT or SIGTERM; streams may end before it returns."""
    gateway = server(settings, state_dir)
    # What is here now stays for good: the collector need not look at it again, nor run every 700 objects.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    gateway.run()
