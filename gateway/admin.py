"""The admin API: an app of its own on an address of its own, so that nothing of it can be reached through the public one."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi

from gateway.exchange import BodyLimits
from gateway.middleware.admin_guard import AdminGuard
from gateway.middleware.edge import Edge
from gateway.routes import admin as admin_routes
from gateway.routes import error_answers
from gateway.tenant_admin import TenantAdmin

log = logging.getLogger(__name__)

_BODY_BYTES = 256 * 1024
_AGAIN_S = 2.0
_STOP_S = 2
_DESCRIPTION = """
Tenants, their projects, and the keys of those, with tiers, allowed models and limits at each level. Gateways notice every change
within 2 s. The token is in the file `admin-token` in state_dir.

테넌트, 프로젝트, 키와 각 단계의 등급, 허용 모델, 한도를 관리합니다. 변경은 2초 안에 모든 게이트웨이에 반영됩니다.
"""


def create_admin_app(admin: TenantAdmin, token: str, *others: APIRouter) -> FastAPI:
    """`others` are what operators may ask besides, with the same token."""
    app = FastAPI(title="daemun admin", version=version("daemun"), description=_DESCRIPTION, redoc_url=None)
    for router in (admin_routes.router(admin), *others):
        app.include_router(router)
    error_answers.add_to(app)
    app.add_middleware(AdminGuard, token=token)
    app.add_middleware(Edge, limits=BodyLimits(_BODY_BYTES, _BODY_BYTES))
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


class AdminListener:
    """Serves it for as long as the `async with` block lasts.

    Where the address is taken, as by another worker of this machine, it says so and takes it over when it is free.
    """

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        self._address = host, port
        self._server = _Server(
            uvicorn.Config(
                app, lifespan="off", proxy_headers=False, access_log=False, log_config=None, timeout_graceful_shutdown=_STOP_S
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> AdminListener:
        self._task = asyncio.create_task(self._listen(self._bind(logging.INFO)))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is None:
            return
        self._server.should_exit = True
        if not self._server.started:
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _listen(self, listener: socket.socket | None) -> None:
        while listener is None:
            await asyncio.sleep(_AGAIN_S)
            listener = self._bind(logging.DEBUG)
        log.info("The admin API listens on %s:%d.", *self._address)
        with listener:
            await self._server.serve(sockets=[listener])

    def _bind(self, level: int) -> socket.socket | None:
        host, port = self._address
        try:
            return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as problem:
            if problem.errno == errno.EADDRINUSE:
                log.log(
                    level, "Another process has the admin API's address %s:%d; when it is free, this one takes it.", host, port
                )
            elif level == logging.INFO:
                log.error("The admin API cannot listen on %s:%d (%s). Set gateway.admin.host and port.", host, port, problem)
            return None


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """They are the gateway's."""
        yield


def _document(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)  # nobody gets FastAPI's own error
        for unused in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(unused, None)
        app.openapi_schema = document
    return app.openapi_schema
