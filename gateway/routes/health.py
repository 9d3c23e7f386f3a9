"""For load balancers and people: is this process alive, and may it be sent calls?"""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel

from gateway.ports import Fleet, Ledger


class Live(BaseModel):
    live: bool = True


class Ready(BaseModel):
    """`waiting_for` says in sentences what is missing; it is empty when `ready` is true."""

    ready: bool
    waiting_for: list[str]


def router(fleet: Fleet, ledger: Ledger) -> APIRouter:
    routes = APIRouter(prefix="/health", tags=["health"])

    @routes.get("/live", summary="The process runs")
    async def live() -> Live:
        return Live()

    @routes.get(
        "/ready", summary="Every model has a ready replica, and calls can be accounted for", responses={503: {"model": Ready}}
    )
    async def ready(response: Response) -> Ready:
        waiting_for = [*fleet.waiting_for(), *(["room for the ledger's journal"] if ledger.is_stuck() else [])]
        response.status_code = 503 if waiting_for else 200
        return Ready(ready=not waiting_for, waiting_for=waiting_for)

    return routes
