"""`/v1/models`: what a key may use, whether or not a replica is ready this minute."""

from __future__ import annotations

from fastapi import APIRouter, Header
from pydantic import BaseModel

from gateway.errors import ModelNotFound
from gateway.pipeline import Pipeline
from gateway.protocol.credential import bearer


class Model(BaseModel):
    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = "daemun"


class ModelList(BaseModel):
    object: str = "list"
    data: list[Model]


def router(pipeline: Pipeline) -> APIRouter:
    routes = APIRouter(prefix="/v1/models", tags=["models"])

    async def usable(authorization: str) -> list[str]:
        return pipeline.models_for(await pipeline.identify(bearer(authorization)))

    @routes.get("", summary="The models that this key may use")
    async def list_models(authorization: str = Header("")) -> ModelList:
        return ModelList(data=[Model(id=model) for model in await usable(authorization)])

    @routes.get("/{model:path}", summary="One model")
    async def get_model(model: str, authorization: str = Header("")) -> Model:
        models = await usable(authorization)
        if model not in models:
            raise ModelNotFound(param="model", model=model, models=", ".join(models) or "-")
        return Model(id=model)

    return routes
