"""The HTTP server around the app: uvicorn's sockets, signals and lifespan on uvloop, with our own protocol for connections."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
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
_OWN_DESCRIPTORS = 128  # for the listener, the ledger, the probes, the interpreter


class Server(uvicorn.Server):
    """Stops in three steps: takes nothing more, lets what runs end, and hands back what `shutdown_s` is too short for.

    While it drains, connections that were kept stay open, and whatever is asked on them is answered with `server_stopping`: a
    readiness probe learns it, and a client's next call goes elsewhere instead of into a closing socket.
    """

    def __init__(self, app: Gateway, settings: GatewaySettings) -> None:
        self._shutdown_s = settings.timeouts.shutdown_s
        self._app = app
        self._connections = Connections(settings.clients, descriptors=_descriptors() - _OWN_DESCRIPTORS)
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                loop="uvloop",
                interface="asgi3",
                http=partial(_connection, self._connections),  # type: ignore[arg-type]  # it is only called
                lifespan="on",
                backlog=_BACKLOG,
                proxy_headers=False,
                log_config=None,
                timeout_graceful_shutdown=_AFTER_HAND_BACK_S,
            )
        )
        self.server_state.connections = self._connections.open  # type: ignore[assignment]  # uvicorn ends them when it stops

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in self.servers:
            listener.close()
        self._connections.closing = True
        loop = asyncio.get_running_loop()
        until = loop.time() + self._shutdown_s
        while self.server_state.tasks and loop.time() < until and not self.force_exit:  # noqa: ASYNC110 (uvicorn tells by a flag)
            await asyncio.sleep(0.05)
        self._app.running.hand_back()
        await super().shutdown(sockets)


def _connection(
    connections: Connections,
    config: uvicorn.Config,
    server_state: ServerState,
    app_state: dict[str, Any],
    _loop: asyncio.AbstractEventLoop | None = None,
) -> ClientConnection:
    """What uvicorn calls for each new connection."""
    return ClientConnection(config.loaded_app, connections, server_state.tasks, app_state)


def _descriptors() -> int:
    """How many files and sockets this process may have open, once it has asked for all that it may ask for."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def server(settings: GatewaySettings, state_dir: Path) -> Server:
    """The gateway, ready to be run. Raises what `create_app` raises."""
    return Server(create_app(settings, state_dir), settings)


def run(settings: GatewaySettings, state_dir: Path, listener: socket.socket | None = None) -> None:
    """Serve in the foreground until SIGINT or SIGTERM; streams may end before it returns. `listener` is bound already."""
    gateway = server(settings, state_dir)
    # What is here now stays for good: the collector need not look at it again, nor run every 700 objects.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    # uvicorn stops on these and then raises them once more, which would make a proper end look like a death.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: None)
    gateway.run(None if listener is None else [listener])
