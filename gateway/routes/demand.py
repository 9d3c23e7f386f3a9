"""GET /internal/demand: per model, what is asked of it and what is done about it. For operators and autoscalers."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from gateway.errors import NotFound
from gateway.policy.limits import Tier
from gateway.ports import Fleet, Gate

_LOOPBACK = frozenset({"127.0.0.1", "::1"})
_PROXIED = ("forwarded", "x-forwarded-for")


def router(gate: Gate, fleet: Fleet, *, loopback_only: bool = True) -> APIRouter:
    """`loopback_only` is for where others could reach it: a proxy on this machine that says for whom it asks counts as others."""
    made = APIRouter(include_in_schema=False)

    @made.get("/internal/demand")
    async def demand(request: Request) -> Response:
        if loopback_only and not _is_near(request):
            raise NotFound(path=request.url.path)
        models = {model: _of_model(model, gate, fleet) for model in fleet.models()}
        return Response(msgspec.json.encode({"models": models}), media_type="application/json")

    return made


def _of_model(model: str, gate: Gate, fleet: Fleet) -> dict[str, Any]:
    demand = gate.demand(model)
    figures: dict[str, Any] = msgspec.to_builtins(demand)
    capacity = figures.pop("capacity")
    tiers = {tier.value: msgspec.to_builtins(demand.tiers[tier]) for tier in Tier if tier in demand.tiers}
    replicas = {"ready": len(fleet.ready(model)), "starting": fleet.starting(model)}
    told = {"tiers": tiers, "replicas": replicas, "places": capacity["places"], "kv_tokens": capacity["tokens"]}
    return figures | told | {"calls": msgspec.to_builtins(gate.tally(model))}


def _is_near(request: Request) -> bool:
    client = request.client
    return client is not None and client.host in _LOOPBACK and not any(name in request.headers for name in _PROXIED)
