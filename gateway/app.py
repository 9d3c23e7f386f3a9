"""create_app: the only place that wires the gateway's parts together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route

from gateway.adapters import sqlite
from gateway.adapters.asyncio_gate import AsyncioGate
from gateway.adapters.fresh_tenants import FreshTenants
from gateway.adapters.http_upstream import HttpUpstream, Timeouts
from gateway.adapters.journal import Journal, journal_folder
from gateway.adapters.mover_process import MoverProcess
from gateway.adapters.open_limits import OpenLimits
from gateway.adapters.probed_fleet import Discovery, ProbedFleet
from gateway.adapters.ray_discovery import RayDiscovery
from gateway.adapters.sqlite_tenants import SqliteTenants
from gateway.adapters.static_discovery import StaticDiscovery
from gateway.adapters.system_clock import SystemClock
from gateway.errors import CallError, MethodNotAllowed, NotFound
from gateway.exchange import BodyLimits
from gateway.middleware.edge import Edge
from gateway.pipeline import Pipeline
from gateway.policy.admission import Rules
from gateway.ports import Ports
from gateway.protocol.asgi import Receive, Scope, Send
from gateway.protocol.endpoint import ENDPOINTS
from gateway.protocol.language import preferred
from gateway.protocol.plain import Engine
from gateway.routes import demand, health, models, openapi, responses
from gateway.routes.inference import InferenceEndpoint, Running
from gateway.settings import GatewaySettings, QueueSettings, RayFleet, StaticFleet
from gateway.supply import Supply

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
RAY_TOKEN = "ray-token"  # noqa: S105 (the name of a file in state_dir)


def create_app(settings: GatewaySettings, state_dir: Path) -> Gateway:
    """The gateway. Its files are in `state_dir`; its sockets and the ledger's mover live as long as the app's lifespan.

    Raises gateway.adapters.sqlite.StoreUnusable before anything is started.
    """
    connection = sqlite.connect(sqlite.store_path(state_dir))
    clock = SystemClock()
    queue = settings.queue
    gate = AsyncioGate(_rules(queue), clock, heartbeat_s=queue.heartbeat_s)
    fleet = ProbedFleet(
        [_discovery(fleet, state_dir) for fleet in settings.fleets],
        look_s=settings.look_s,
        probe_timeout_s=settings.probe_timeout_s,
    )
    Supply(fleet, gate, places_per_replica=queue.places_per_replica)
    timeouts = settings.timeouts
    upstream = HttpUpstream(Timeouts(timeouts.connect_s, timeouts.first_byte_s, timeouts.between_chunks_s))
    journal = Journal(journal_folder(state_dir))
    ports = Ports(clock, FreshTenants(SqliteTenants(connection), clock), OpenLimits(), gate, fleet, upstream, journal)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as running:
            running.enter_context(closing(connection))
            await running.enter_async_context(MoverProcess(journal, state_dir))
            running.enter_context(journal)
            await running.enter_async_context(upstream)
            await running.enter_async_context(fleet)
            yield

    return assemble(ports, settings, lifespan)


class Gateway(FastAPI):
    """FastAPI with one shortcut: calls for an engine go to their raw endpoint before any middleware or routing."""

    def __init__(self, pipeline: Pipeline, limits: BodyLimits, lifespan: Lifespan | None) -> None:
        super().__init__(title="daemun", version=version("daemun"), lifespan=lifespan)
        self.running = Running()
        self._inference = {
            ("POST", endpoint.path): InferenceEndpoint(pipeline, endpoint, limits, self.running) for endpoint in ENDPOINTS
        }
        for (method, path), endpoint in self._inference.items():  # for the other methods' 405
            self.router.routes.append(Route(path, endpoint, methods=[method]))

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        inference = self._inference.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        return super().__call__(scope, receive, send) if inference is None else inference(scope, receive, send)


def assemble(ports: Ports, settings: GatewaySettings, lifespan: Lifespan | None = None) -> Gateway:
    """The app over given ports; tests hand in fakes here."""
    pipeline = Pipeline(ports, call_s=settings.timeouts.call_s)
    limits = BodyLimits(settings.max_body_bytes, settings.max_media_body_bytes)
    app = Gateway(pipeline, limits, lifespan)
    app.include_router(models.router(pipeline, ports.clock))
    app.include_router(responses.router(pipeline))
    app.include_router(health.router(ports.fleet))
    app.include_router(demand.router(ports.gate, ports.fleet))
    openapi.describe(app)
    app.add_exception_handler(CallError, _answer_call_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_middleware(Edge, limits=limits)
    return app


def _rules(queue: QueueSettings) -> Rules:
    return Rules(
        most_waiting=queue.most_waiting,
        busy_s=queue.patience_s,
        cold_s=queue.cold_patience_s,
        batch_s=queue.batch_patience_s,
        prompt_s=queue.prompt_s,
        target_first_token_s=queue.target_first_token_s,
        free_output_cap_tokens=queue.free_output_cap_tokens,
        reserved_share=queue.reserved_share,
        paid_share=queue.paid_share,
        free_share=queue.free_share,
    )


def _discovery(fleet: RayFleet | StaticFleet, state_dir: Path) -> Discovery:
    if isinstance(fleet, RayFleet):
        return RayDiscovery(fleet.url, fleet.token_file, own_token_file=state_dir / RAY_TOKEN)
    return StaticDiscovery(fleet.urls, fleet.models, None if fleet.engine == "auto" else Engine(fleet.engine))


async def _answer_call_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, CallError):
        raise TypeError(f"not a CallError: {error!r}")
    headers = {name.decode(): value.decode() for name, value in error.headers()}
    body = error.body(preferred(request.headers.get("accept-language", "")))
    return Response(body, error.status, headers, "application/json")


async def _answer_http_error(request: Request, error: Exception) -> Response:
    """What FastAPI says of an address or a method that it does not know, in OpenAI's shape."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        answer = await _answer_call_error(request, MethodNotAllowed(path=request.url.path, method=request.method))
        answer.headers.update(error.headers or {})
        return answer
    return await _answer_call_error(request, NotFound(path=request.url.path))
