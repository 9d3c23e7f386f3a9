"""`/v1/models`: what a key may use, whether or not a replica is ready this minute.

One answer for the clients of two APIs: OpenAI's fields and Anthropic's side by side; each client looks at its own.
"""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from gateway.errors import ModelNotFound
from gateway.pipeline import Pipeline
from gateway.ports import Clock
from gateway.protocol import credential


class Model(BaseModel):
    id: str
    object: str = "model"
    created: int = Field(description="Since when this gateway serves it, in seconds since the epoch.")
    owned_by: str = "daemun"
    type: str = "model"
    display_name: str
    created_at: datetime = Field(description="The same as `created`, as Anthropic's clients read it.")


class ModelList(BaseModel):
    object: str = "list"
    data: list[Model]
    has_more: bool = False
    first_id: str | None
    last_id: str | None


def router(pipeline: Pipeline, clock: Clock) -> APIRouter:
    routes = APIRouter(prefix="/v1/models", tags=["models"])
    since = int(clock.time())

    def card(model: str) -> Model:
        return Model(id=model, created=since, display_name=model, created_at=datetime.fromtimestamp(since, UTC))

    async def usable(request: Request) -> list[str]:
        headers = request.headers
        key = credential.presented(headers.get("authorization", ""), headers.get("x-api-key", ""))
        return pipeline.models_for(await pipeline.identify(key))

    @routes.get("", summary="The models that this key may use · 이 키로 쓸 수 있는 모델")
    async def list_models(request: Request) -> ModelList:
        models = await usable(request)
        first, last = (models[0], models[-1]) if models else (None, None)
        return ModelList(data=[card(model) for model in models], first_id=first, last_id=last)

    @routes.get("/{model:path}", summary="One model · 모델 하나")
    async def get_model(model: str, request: Request) -> Model:
        models = await usable(request)
        if model not in models:
            raise ModelNotFound(param="model", model=model, models=", ".join(models) or "-")
        return card(model)

    return routes
