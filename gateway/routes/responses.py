"""What clients of the responses API ask about answers of the past. There is nothing to tell: engines keep none, so neither do we.

vLLM can keep responses in the memory of one replica. Behind several replicas that come and go they would be found by chance.
"""

from __future__ import annotations

from fastapi import APIRouter, Request

from gateway.errors import ResponseNotKept
from gateway.pipeline import Pipeline
from gateway.protocol import credential


def router(pipeline: Pipeline) -> APIRouter:
    routes = APIRouter(prefix="/v1/responses/{response_id}", include_in_schema=False)

    @routes.api_route("", methods=["GET", "DELETE"])
    @routes.get("/input_items")
    @routes.post("/cancel")
    async def refuse(response_id: str, request: Request) -> None:
        headers = request.headers
        await pipeline.identify(credential.presented(headers.get("authorization", ""), headers.get("x-api-key", "")))
        raise ResponseNotKept

    return routes
