"""GET /internal/demand: per model, what is asked of it and what is done about it. For operators and autoscalers.

It is of all workers of this machine together, whichever answers: `workers` says how many were heard of, and how old the oldest of
what they told is. What one of them has counted since its start goes with it when it ends, so `calls` and `rejected` may fall.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from gateway.errors import NotFound
from gateway.policy.demand import total
from gateway.policy.limits import Tier
from gateway.ports import Asked, Clock, DemandSource

_LOOPBACK = frozenset({"127.0.0.1", "::1"})
_PROXIED = ("forwarded", "x-forwarded-for")


def router(source: DemandSource, clock: Clock, *, loopback_only: bool = True) -> APIRouter:
    """`loopback_only` is for where others could reach it: a proxy on this machine that says for whom it asks counts as others."""
    made = APIRouter(include_in_schema=False)

    @made.get("/internal/demand")
    async def demand(request: Request) -> Response:
        check_near(request, loopback_only=loopback_only)
        return Response(msgspec.json.encode(await shown(source, clock)), media_type="application/json")

    return made


def check_near(request: Request, *, loopback_only: bool) -> None:
    """Raises NotFound for who should not know that there is anything."""
    if loopback_only and not _is_near(request):
        raise NotFound(path=request.url.path)


async def shown(source: DemandSource, clock: Clock) -> dict[str, Any]:
    """`workers`: how many were heard of, and the age of the oldest word. `models`: by name, of all workers together."""
    tellings = await source.of_all()
    names = dict.fromkeys(model for telling in tellings for model in telling.models)
    models = {name: _together([told.models[name] for told in tellings if name in told.models]) for name in names}
    oldest_s = max(0.0, clock.time() - min(telling.at for telling in tellings))
    return {"workers": {"count": len(tellings), "oldest_s": round(oldest_s, 3)}, "models": models}


def _together(asked: Sequence[Asked]) -> dict[str, Any]:
    demand = total([one.demand for one in asked])
    figures: dict[str, Any] = msgspec.to_builtins(demand)
    capacity = figures.pop("capacity")
    tiers = {tier.value: msgspec.to_builtins(demand.tiers[tier]) for tier in Tier}
    replicas = {"ready": max(one.ready for one in asked), "starting": max(one.starting for one in asked)}
    told = {"tiers": tiers, "replicas": replicas, "places": capacity["places"], "kv_tokens": capacity["tokens"]}
    return figures | told | {"calls": _calls(asked)}


def _calls(asked: Sequence[Asked]) -> dict[str, int]:
    tallies: list[dict[str, int]] = [msgspec.to_builtins(one.calls) for one in asked]
    return {what: sum(tally[what] for tally in tallies) for what in tallies[0]}


def _is_near(request: Request) -> bool:
    client = request.client
    return client is not None and client.host in _LOOPBACK and not any(name in request.headers for name in _PROXIED)
