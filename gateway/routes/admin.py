"""`/admin/v1`: tenants, projects, keys and their limits, for the operator. What may be said of them `policy.tenancy` decides."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from gateway.policy.limits import Tier
from gateway.policy.tenancy import Values
from gateway.tenant_admin import TenantAdmin

_TIERS: dict[str, JsonValue] = {"enum": [tier.value for tier in Tier]}


class Wish(BaseModel):
    """A request's body. What is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", strict=True)

    def values(self, *less: str) -> Values:
        return self.model_dump(exclude_unset=True, exclude=set(less))


class Card(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class LimitsWish(Wish):
    """Limits of one level; null removes one."""

    requests_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    concurrent: int | None = Field(None, description="Calls at once.")
    tokens_per_month: int | None = Field(None, description="In a month of the calendar.")
    krw_per_month: int | None = Field(None, description="In whole won, in a month of the calendar.")


class LimitsCard(Card):
    """Null means no limit at this level. The limits of all levels hold."""

    requests_per_minute: int | None
    requests_per_day: int | None
    tokens_per_minute: int | None
    tokens_per_day: int | None
    concurrent: int | None
    tokens_per_month: int | None
    krw_per_month: int | None


class ProjectChange(Wish):
    models: list[str] | None = Field(None, description="Models that it may use; null for all that its tenant may.")
    limits: LimitsWish = LimitsWish()
    disabled: bool = Field(False, description="Its keys are refused while this is true.")


class NewProject(ProjectChange):
    name: str = Field(description="Up to 64 characters, without a slash.")


class TenantChange(Wish):
    tier: str = Field("paid", json_schema_extra=_TIERS)
    weight: float = Field(1.0, description="Share of its tier, relative to others'.")
    models: list[str] | None = Field(None, description="Models that it may use; null for all.")
    fallbacks: list[str] = Field([], description="Smaller models that its calls may go to when the one they ask for is full.")
    limits: LimitsWish = LimitsWish()
    disabled: bool = Field(False, description="Its keys are refused while this is true.")


class NewTenant(TenantChange):
    name: str = Field(description="Up to 64 characters, without a slash.")


class KeyChange(Wish):
    tier: str | None = Field(None, description="No higher than its tenant's; null for that.", json_schema_extra=_TIERS)
    models: list[str] | None = Field(None, description="Models that it may use; null for all that its project may.")
    limits: LimitsWish = LimitsWish()


class NewKey(KeyChange):
    tenant: str
    project: str


class TenantCard(Card):
    name: str
    tier: Tier
    weight: float
    models: list[str] | None
    fallbacks: list[str]
    limits: LimitsCard
    disabled: bool
    created_at: float


class ProjectCard(Card):
    tenant: str
    name: str
    models: list[str] | None
    limits: LimitsCard
    disabled: bool
    created_at: float


class KeyCard(Card):
    id: str
    tenant: str
    project: str
    tier: Tier | None
    models: list[str] | None
    limits: LimitsCard
    created_at: float
    revoked_at: float | None


class CreatedKey(KeyCard):
    key: str = Field(description="The key itself, this once: only its hash is kept.")


class TenantList(BaseModel):
    object: str = "list"
    data: list[TenantCard]


class ProjectList(BaseModel):
    object: str = "list"
    data: list[ProjectCard]


class KeyList(BaseModel):
    object: str = "list"
    data: list[KeyCard]


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str


class Error(BaseModel):
    type: str = "error"
    error: ErrorDetail


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Error} for status in (400, 401, *statuses, 503)}


def router(admin: TenantAdmin) -> APIRouter:
    routes = APIRouter(prefix="/admin/v1", dependencies=[Depends(HTTPBearer(auto_error=False))])
    _add_tenants(routes, admin)
    _add_projects(routes, admin)
    _add_keys(routes, admin)
    return routes


def _add_tenants(routes: APIRouter, admin: TenantAdmin) -> None:
    of_one = "/tenants/{tenant}"

    @routes.get("/tenants", summary="All tenants, by name", tags=["tenants"], responses=_errors())
    async def list_tenants() -> TenantList:
        return TenantList(data=[TenantCard.model_validate(one) for one in await admin.tenants()])

    @routes.post("/tenants", status_code=201, summary="Make a tenant", tags=["tenants"], responses=_errors(409))
    async def create_tenant(wish: NewTenant) -> TenantCard:
        return TenantCard.model_validate(await admin.create_tenant(wish.name, wish.values("name")))

    @routes.get(of_one, summary="One tenant", tags=["tenants"], responses=_errors(404))
    async def get_tenant(tenant: str) -> TenantCard:
        return TenantCard.model_validate(await admin.tenant(tenant))

    @routes.patch(of_one, summary="Change what is given, leave the rest", tags=["tenants"], responses=_errors(404))
    async def change_tenant(tenant: str, wish: TenantChange) -> TenantCard:
        return TenantCard.model_validate(await admin.change_tenant(tenant, wish.values()))

    @routes.delete(
        of_one, status_code=204, summary="Delete a tenant without working keys", tags=["tenants"], responses=_errors(404, 409)
    )
    async def delete_tenant(tenant: str) -> Response:
        await admin.delete_tenant(tenant)
        return Response(status_code=204)

    @routes.get(f"{of_one}/limits", summary="A tenant's own limits", tags=["limits"], responses=_errors(404))
    async def get_tenant_limits(tenant: str) -> LimitsCard:
        return LimitsCard.model_validate((await admin.tenant(tenant)).limits)

    @routes.put(f"{of_one}/limits", summary="Set those that are given", tags=["limits"], responses=_errors(404))
    async def set_tenant_limits(tenant: str, wish: LimitsWish) -> LimitsCard:
        return LimitsCard.model_validate((await admin.change_tenant(tenant, {"limits": wish.values()})).limits)


def _add_projects(routes: APIRouter, admin: TenantAdmin) -> None:
    of_all, of_one = "/tenants/{tenant}/projects", "/tenants/{tenant}/projects/{project}"

    @routes.get(of_all, summary="A tenant's projects, by name", tags=["projects"], responses=_errors(404))
    async def list_projects(tenant: str) -> ProjectList:
        return ProjectList(data=[ProjectCard.model_validate(one) for one in await admin.projects(tenant)])

    @routes.post(of_all, status_code=201, summary="Make a project", tags=["projects"], responses=_errors(404, 409))
    async def create_project(tenant: str, wish: NewProject) -> ProjectCard:
        return ProjectCard.model_validate(await admin.create_project(tenant, wish.name, wish.values("name")))

    @routes.get(of_one, summary="One project", tags=["projects"], responses=_errors(404))
    async def get_project(tenant: str, project: str) -> ProjectCard:
        return ProjectCard.model_validate(await admin.project(tenant, project))

    @routes.patch(of_one, summary="Change what is given, leave the rest", tags=["projects"], responses=_errors(404))
    async def change_project(tenant: str, project: str, wish: ProjectChange) -> ProjectCard:
        return ProjectCard.model_validate(await admin.change_project(tenant, project, wish.values()))

    @routes.delete(
        of_one, status_code=204, summary="Delete a project without working keys", tags=["projects"], responses=_errors(404, 409)
    )
    async def delete_project(tenant: str, project: str) -> Response:
        await admin.delete_project(tenant, project)
        return Response(status_code=204)

    @routes.get(f"{of_one}/limits", summary="A project's own limits", tags=["limits"], responses=_errors(404))
    async def get_project_limits(tenant: str, project: str) -> LimitsCard:
        return LimitsCard.model_validate((await admin.project(tenant, project)).limits)

    @routes.put(f"{of_one}/limits", summary="Set those that are given", tags=["limits"], responses=_errors(404))
    async def set_project_limits(tenant: str, project: str, wish: LimitsWish) -> LimitsCard:
        return LimitsCard.model_validate((await admin.change_project(tenant, project, {"limits": wish.values()})).limits)


def _add_keys(routes: APIRouter, admin: TenantAdmin) -> None:
    of_one = "/keys/{key_id}"

    @routes.get("/keys", summary="Keys, the oldest first", tags=["keys"], responses=_errors())
    async def list_keys(
        tenant: Annotated[str | None, "only of this one"] = None, project: Annotated[str | None, "only of this one"] = None
    ) -> KeyList:
        return KeyList(data=[KeyCard.model_validate(one) for one in await admin.keys(tenant, project)])

    @routes.post("/keys", status_code=201, summary="Make a key", tags=["keys"], responses=_errors(404))
    async def create_key(wish: NewKey) -> CreatedKey:
        secret, key = await admin.create_key(wish.tenant, wish.project, wish.values("tenant", "project"))
        return CreatedKey(key=secret, **KeyCard.model_validate(key).model_dump())

    @routes.get(of_one, summary="One key, without its secret", tags=["keys"], responses=_errors(404))
    async def get_key(key_id: str) -> KeyCard:
        return KeyCard.model_validate(await admin.key(key_id))

    @routes.patch(of_one, summary="Change what is given, leave the rest", tags=["keys"], responses=_errors(404))
    async def change_key(key_id: str, wish: KeyChange) -> KeyCard:
        return KeyCard.model_validate(await admin.change_key(key_id, wish.values()))

    @routes.post(f"{of_one}/revoke", summary="Revoke a key, for good", tags=["keys"], responses=_errors(404, 409))
    async def revoke_key(key_id: str) -> KeyCard:
        return KeyCard.model_validate(await admin.revoke_key(key_id))

    @routes.get(f"{of_one}/limits", summary="A key's own limits", tags=["limits"], responses=_errors(404))
    async def get_key_limits(key_id: str) -> LimitsCard:
        return LimitsCard.model_validate((await admin.key(key_id)).limits)

    @routes.put(f"{of_one}/limits", summary="Set those that are given", tags=["limits"], responses=_errors(404))
    async def set_key_limits(key_id: str, wish: LimitsWish) -> LimitsCard:
        return LimitsCard.model_validate((await admin.change_key(key_id, {"limits": wish.values()})).limits)
