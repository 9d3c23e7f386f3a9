"""create_app: the only place that wires the gateway's parts together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.routing import Route

from gateway.adapters.admin_token import admin_token
from gateway.adapters.asyncio_gate import AsyncioGate
from gateway.adapters.engine_tokenizer import EngineTokenizer
from gateway.adapters.event_sender import EventTarget
from gateway.adapters.fresh_tenants import FreshTenants
from gateway.adapters.http_upstream import HttpUpstream, Timeouts
from gateway.adapters.journal import Journal, journal_folder
from gateway.adapters.lease_file import LeaseFile, lease_folder
from gateway.adapters.ledger_mover import Orders, open_ledger
from gateway.adapters.ledger_sums import LedgerSums, StoreSums
from gateway.adapters.local_limits import LocalGrants
from gateway.adapters.metered_limits import MeteredLimits
from gateway.adapters.mover_process import MoverProcess
from gateway.adapters.probed_fleet import Discovery, ProbedFleet
from gateway.adapters.ray_discovery import RayDiscovery
from gateway.adapters.redis_limits import RedisGrants, WithoutRedis
from gateway.adapters.static_discovery import StaticDiscovery
from gateway.adapters.system_clock import SystemClock
from gateway.adapters.tenancy import open_tenancy
from gateway.adapters.threaded_usage import ThreadedUsage
from gateway.adapters.worker_demand import OwnDemand, WorkersDemand
from gateway.admin import AdminListener, create_admin_app
from gateway.exchange import BodyLimits
from gateway.ledger_query import UsageStore
from gateway.middleware.edge import Edge
from gateway.pipeline import Pipeline
from gateway.policy.admission import Rules
from gateway.policy.estimate import Habits
from gateway.ports import Clock, DemandSource, Ports
from gateway.protocol.asgi import Receive, Scope, Send
from gateway.protocol.endpoint import ENDPOINTS
from gateway.protocol.plain import Engine
from gateway.routes import demand, error_answers, health, metrics, models, openapi, responses, usage
from gateway.routes.inference import InferenceEndpoint, Running
from gateway.settings import EventsSettings, GatewaySettings, LimitSettings, QueueSettings, RayFleet, StaticFleet
from gateway.supply import Supply

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
DEMAND = "demand"  # a folder there
RAY_TOKEN = "ray-token"  # noqa: S105 (the name of a file in state_dir)


def create_app(settings: GatewaySettings, state_dir: Path) -> Gateway:
    """The gateway. Its files are in `state_dir`; its sockets and the ledger's mover live as long as the app's lifespan.

    Raises gateway.adapters.schema.StoreUnusable before anything is started.
    """
    clock = SystemClock()
    tenancy = open_tenancy(settings.store.address, state_dir, clock)
    tenants = FreshTenants(tenancy.tenants, clock, believe_s=settings.store.believe_s)
    token = admin_token(state_dir)
    queue = settings.queue
    gate = AsyncioGate(_rules(queue), clock, heartbeat_s=queue.heartbeat_s)
    fleet = ProbedFleet(
        [discovery(fleet, state_dir) for fleet in settings.fleets],
        look_s=settings.look_s,
        probe_timeout_s=settings.probe_timeout_s,
    )
    Supply(fleet, gate, places_per_replica=queue.places_per_replica, workers=settings.workers)
    timeouts = settings.timeouts
    upstream = HttpUpstream(Timeouts(timeouts.connect_s, timeouts.first_byte_s, timeouts.between_chunks_s))
    journal = Journal(journal_folder(state_dir))
    events = _event_target(settings.events)
    orders = Orders(str(state_dir.absolute()), journal.owner, settings.store.address, settings.log_level, events)
    ledger = ThreadedUsage(open_ledger(orders))
    grants = _grants(settings.limits, state_dir, clock, StoreSums(ledger))
    habits, count_tokens = Habits(), EngineTokenizer(fleet, upstream).count
    limits = MeteredLimits(grants, clock, habits, count_tokens=count_tokens, price=settings.rates().cost_ukrw)
    ports = Ports(clock, tenants, limits, gate, fleet, upstream, journal, habits)
    own_demand = OwnDemand(gate, fleet, clock)
    workers_demand = None if settings.limits.address is None else WorkersDemand(own_demand, state_dir / DEMAND, clock)
    asked = workers_demand or own_demand

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as running:
            await running.enter_async_context(tenancy.running)
            await running.enter_async_context(MoverProcess(journal, orders))
            await running.enter_async_context(ledger)
            running.enter_context(journal)
            await running.enter_async_context(grants)
            await running.enter_async_context(upstream)
            await running.enter_async_context(fleet)
            if workers_demand is not None:
                await running.enter_async_context(workers_demand)
            if settings.admin.port is not None:
                others = [made.router(asked, clock, loopback_only=False) for made in (demand, metrics)]
                admin = create_admin_app(tenancy.admin, token, *others)
                await running.enter_async_context(AdminListener(admin, settings.admin.host, settings.admin.port))
            yield

    return assemble(ports, settings, lifespan, usage_store=ledger, asked=asked)


class Gateway(FastAPI):
    """FastAPI with one shortcut: calls for an engine go to their raw endpoint before any middleware or routing."""

    def __init__(self, pipeline: Pipeline, limits: BodyLimits, lifespan: Lifespan | None) -> None:
        super().__init__(title="daemun", version=version("daemun"), lifespan=lifespan)
        self.running = Running(pipeline.stop)
        self._inference = {
            ("POST", endpoint.path): InferenceEndpoint(pipeline, endpoint, limits, self.running) for endpoint in ENDPOINTS
        }
        for (method, path), endpoint in self._inference.items():  # for the other methods' 405
            self.router.routes.append(Route(path, endpoint, methods=[method]))

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        inference = self._inference.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        return super().__call__(scope, receive, send) if inference is None else inference(scope, receive, send)


def assemble(
    ports: Ports,
    settings: GatewaySettings,
    lifespan: Lifespan | None = None,
    *,
    usage_store: UsageStore | None = None,
    asked: DemandSource | None = None,
) -> Gateway:
    """The app over given ports; tests hand in fakes here. Without a store of usage, nothing tells what was used; without a source
    of what is asked of all workers, it is of this one.
    """
    rollouts = [rollout.rollout() for rollout in settings.rollouts]
    pipeline = Pipeline(ports, call_s=settings.timeouts.call_s, rates=settings.rates(), rollouts=rollouts)
    limits = BodyLimits(settings.max_body_bytes, settings.max_media_body_bytes)
    app = Gateway(pipeline, limits, lifespan)
    app.include_router(models.router(pipeline, ports.clock))
    app.include_router(responses.router(pipeline))
    app.include_router(health.router(ports.fleet, ports.ledger))
    for shows in (demand, metrics):
        app.include_router(shows.router(asked or OwnDemand(ports.gate, ports.fleet, ports.clock), ports.clock))
    if usage_store is not None:
        app.include_router(usage.router(pipeline, usage_store, ports.clock))
    openapi.describe(app)
    error_answers.add_to(app)
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


def discovery(fleet: RayFleet | StaticFleet, state_dir: Path) -> Discovery:
    if isinstance(fleet, RayFleet):
        return RayDiscovery(fleet.url, fleet.token_file, own_token_file=state_dir / RAY_TOKEN)
    return StaticDiscovery(fleet.urls, fleet.models, None if fleet.engine == "auto" else Engine(fleet.engine))


def _event_target(events: EventsSettings) -> EventTarget | None:
    if events.url is None:
        return None
    token_file = None if events.token_file is None else str(events.token_file.absolute())
    return EventTarget(events.url, events.format, events.source, token_file)


def _grants(settings: LimitSettings, state_dir: Path, clock: Clock, sums: LedgerSums) -> LocalGrants | RedisGrants:
    file, offset_ms = LeaseFile(lease_folder(state_dir)), int(settings.utc_offset_hours * 3_600_000)
    if settings.address is None:
        return LocalGrants(file, clock, offset_ms=offset_ms, sums=sums)
    without = WithoutRedis(settings.most_workers if settings.without_redis == "share" else None)
    return RedisGrants(settings.address, file, clock, offset_ms=offset_ms, without=without, sums=sums)
