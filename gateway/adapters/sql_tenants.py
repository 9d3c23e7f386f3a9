"""Tenants, projects and keys in tables, whichever database has them: rows, and the work on them that SQLite and PostgreSQL share.

Keys are 256 random bits, so their SHA-256 can be kept and looked up without salt or stretching; the key itself is shown once,
at creation, and is nowhere else. Places for values are `$1`, `$2`, …, which both databases understand.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import msgspec

from gateway.policy import tenancy
from gateway.policy.limits import Limits, Tier
from gateway.policy.tenancy import AlreadyRevoked, AlreadyThere, Key, Missing, MissingProject, Project, StillUsed, Tenant, Values
from gateway.ports import Clock, Principal

KEY_PREFIX = "dm-"

Row = Sequence[Any]

_TENANT = "name, tier, weight, models, fallbacks, limits, disabled, created_at"
_PROJECT = "tenant, name, models, limits, disabled, created_at"
_KEY = "id, tenant, project, tier, models, limits, created_at, revoked_at"


def _of(table: str, columns: str) -> str:
    return ", ".join(f"{table}.{column}" for column in columns.split(", "))


FIND = (
    f"SELECT keys.hash, {_of('tenants', _TENANT)}, {_of('projects', _PROJECT)}, {_of('keys', _KEY)} FROM keys"  # noqa: S608 (our own names)
    " JOIN tenants ON tenants.name = keys.tenant"
    " JOIN projects ON projects.tenant = keys.tenant AND projects.name = keys.project"
    " WHERE keys.hash = $1 AND keys.revoked_at IS NULL AND NOT tenants.disabled AND NOT projects.disabled"
)


class Statements(Protocol):
    async def fetch(self, sql: str, *values: object) -> Sequence[Row]:
        """The rows that one statement gives."""
        ...


class Database(Protocol):
    def transaction(self, *, writes: bool = False) -> AbstractAsyncContextManager[Statements]:
        """All or nothing; of those that write, one after the other. Raises StoreUnavailable."""
        ...


def hash_of(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def principal_of(row: Row | None, digest: bytes) -> Principal | None:
    """Of what FIND gives."""
    if row is None or not hmac.compare_digest(bytes(row[0]), digest):
        return None
    tenant, project, key = _tenant(row[1:9]), _project(row[9:15]), _key(row[15:])
    models = tenancy.models_of(tenant, project, key)
    return Principal(
        key_id=key.id,
        tenant=tenant.name,
        project=project.name,
        tier=tenancy.tier_of(tenant, key),
        models=models,
        scopes=tenancy.scopes_of(tenant, project, key),
        weight=tenant.weight,
        fallbacks=tuple(model for model in tenant.fallbacks if models is None or model in models),
    )


class SqlTenantAdmin:
    """A TenantAdmin."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create_tenant(self, name: str, values: Values) -> Tenant:
        made = tenancy.changed(Tenant(tenancy.checked_name("name", name), created_at=self._clock.time()), values)
        async with self._database.transaction(writes=True) as store:
            if await _find_tenant(store, name):
                raise AlreadyThere(kind="tenant", name=name)
            await _insert(store, "tenants", _TENANT, _tenant_row(made))
        return made

    async def tenants(self) -> list[Tenant]:
        async with self._database.transaction() as store:
            return [_tenant(row) for row in await store.fetch(f"SELECT {_TENANT} FROM tenants ORDER BY name")]  # noqa: S608

    async def tenant(self, name: str) -> Tenant:
        async with self._database.transaction() as store:
            return await _get_tenant(store, name)

    async def change_tenant(self, name: str, values: Values) -> Tenant:
        async with self._database.transaction(writes=True) as store:
            made = tenancy.changed(await _get_tenant(store, name), values)
            await _update(store, "tenants", _TENANT, _tenant_row(made), keys=1)
        return made

    async def delete_tenant(self, name: str) -> None:
        async with self._database.transaction(writes=True) as store:
            await _get_tenant(store, name)
            if live := await _live_keys(store, "tenant = $1", name):
                raise StillUsed(kind="tenant", name=name, keys=live)
            await store.fetch("DELETE FROM keys WHERE tenant = $1", name)
            await store.fetch("DELETE FROM projects WHERE tenant = $1", name)
            await store.fetch("DELETE FROM tenants WHERE name = $1", name)

    async def create_project(self, tenant: str, name: str, values: Values) -> Project:
        made = tenancy.changed(Project(tenant, tenancy.checked_name("name", name), created_at=self._clock.time()), values)
        async with self._database.transaction(writes=True) as store:
            await _get_tenant(store, tenant)
            if await _find_project(store, tenant, name):
                raise AlreadyThere(kind="project", name=name)
            await _insert(store, "projects", _PROJECT, _project_row(made))
        return made

    async def projects(self, tenant: str) -> list[Project]:
        async with self._database.transaction() as store:
            await _get_tenant(store, tenant)
            found = await store.fetch(f"SELECT {_PROJECT} FROM projects WHERE tenant = $1 ORDER BY name", tenant)  # noqa: S608
            return [_project(row) for row in found]

    async def project(self, tenant: str, name: str) -> Project:
        async with self._database.transaction() as store:
            return await _get_project(store, tenant, name)

    async def change_project(self, tenant: str, name: str, values: Values) -> Project:
        async with self._database.transaction(writes=True) as store:
            made = tenancy.changed(await _get_project(store, tenant, name), values)
            await _update(store, "projects", _PROJECT, _project_row(made), keys=2)
        return made

    async def delete_project(self, tenant: str, name: str) -> None:
        async with self._database.transaction(writes=True) as store:
            await _get_project(store, tenant, name)
            if live := await _live_keys(store, "tenant = $1 AND project = $2", tenant, name):
                raise StillUsed(kind="project", name=name, keys=live)
            await store.fetch("DELETE FROM keys WHERE tenant = $1 AND project = $2", tenant, name)
            await store.fetch("DELETE FROM projects WHERE tenant = $1 AND name = $2", tenant, name)

    async def create_key(self, tenant: str, project: str, values: Values) -> tuple[str, Key]:
        secret, key_id = KEY_PREFIX + secrets.token_urlsafe(32), "key_" + secrets.token_hex(6)
        made = tenancy.changed(Key(key_id, tenant, project, created_at=self._clock.time()), values)
        async with self._database.transaction(writes=True) as store:
            await _get_project(store, tenant, project)
            tenancy.check_key(made, await _get_tenant(store, tenant))
            await _insert(store, "keys", f"{_KEY}, hash", (*_key_row(made), hash_of(secret)))
        return secret, made

    async def keys(self, tenant: str | None = None, project: str | None = None) -> list[Key]:
        async with self._database.transaction() as store:
            found = await store.fetch(f"SELECT {_KEY} FROM keys ORDER BY created_at, id")  # noqa: S608
        keys = [_key(row) for row in found]
        return [key for key in keys if tenant in (None, key.tenant) and project in (None, key.project)]

    async def key(self, key_id: str) -> Key:
        async with self._database.transaction() as store:
            return await _get_key(store, key_id)

    async def change_key(self, key_id: str, values: Values) -> Key:
        async with self._database.transaction(writes=True) as store:
            made = tenancy.changed(await _get_key(store, key_id), values)
            tenancy.check_key(made, await _get_tenant(store, made.tenant))
            await _update(store, "keys", _KEY, _key_row(made), keys=1)
        return made

    async def revoke_key(self, key_id: str) -> Key:
        async with self._database.transaction(writes=True) as store:
            found = await _get_key(store, key_id)
            if found.revoked_at is not None:
                raise AlreadyRevoked(name=key_id)
            made = dataclasses.replace(found, revoked_at=self._clock.time())
            await _update(store, "keys", _KEY, _key_row(made), keys=1)
        return made


async def _insert(store: Statements, table: str, columns: str, row: Row) -> None:
    places = ", ".join(f"${number}" for number, _ in enumerate(row, 1))
    await store.fetch(f"INSERT INTO {table} ({columns}) VALUES ({places})", *row)  # noqa: S608 (names of our own)


async def _update(store: Statements, table: str, columns: str, row: Row, *, keys: int) -> None:
    """The first `keys` columns say which row it is."""
    terms = [f"{column} = ${number}" for number, column in enumerate(columns.split(", "), 1)]
    await store.fetch(f"UPDATE {table} SET {', '.join(terms[keys:])} WHERE {' AND '.join(terms[:keys])}", *row)  # noqa: S608


async def _find_tenant(store: Statements, name: str) -> Tenant | None:
    found = await store.fetch(f"SELECT {_TENANT} FROM tenants WHERE name = $1", name)  # noqa: S608
    return _tenant(found[0]) if found else None


async def _get_tenant(store: Statements, name: str) -> Tenant:
    found = await _find_tenant(store, name)
    if found is None:
        raise Missing(kind="tenant", name=name)
    return found


async def _find_project(store: Statements, tenant: str, name: str) -> Project | None:
    found = await store.fetch(f"SELECT {_PROJECT} FROM projects WHERE tenant = $1 AND name = $2", tenant, name)  # noqa: S608
    return _project(found[0]) if found else None


async def _get_project(store: Statements, tenant: str, name: str) -> Project:
    found = await _find_project(store, tenant, name)
    if found is None:
        await _get_tenant(store, tenant)
        raise MissingProject(tenant=tenant, name=name)
    return found


async def _get_key(store: Statements, key_id: str) -> Key:
    found = await store.fetch(f"SELECT {_KEY} FROM keys WHERE id = $1", key_id)  # noqa: S608
    if not found:
        raise Missing(kind="key", name=key_id)
    return _key(found[0])


async def _live_keys(store: Statements, where: str, *values: object) -> str:
    found = await store.fetch(f"SELECT id FROM keys WHERE {where} AND revoked_at IS NULL ORDER BY id LIMIT 3", *values)  # noqa: S608
    return ", ".join(row[0] for row in found)


def _tenant(row: Row) -> Tenant:
    name, tier, weight, models, fallbacks, limits, disabled, created_at = row
    return Tenant(name, Tier(tier), weight, _list(models), _list(fallbacks) or (), _limits(limits), bool(disabled), created_at)


def _project(row: Row) -> Project:
    tenant, name, models, limits, disabled, created_at = row
    return Project(tenant, name, _list(models), _limits(limits), bool(disabled), created_at)


def _key(row: Row) -> Key:
    id_, tenant, project, tier, models, limits, created_at, revoked_at = row
    return Key(id_, tenant, project, tier and Tier(tier), _list(models), _limits(limits), created_at, revoked_at)


def _tenant_row(tenant: Tenant) -> Row:
    own = (_text(tenant.models), _text(tenant.fallbacks), _limits_text(tenant.limits), tenant.disabled, tenant.created_at)
    return (tenant.name, tenant.tier.value, tenant.weight, *own)


def _project_row(project: Project) -> Row:
    own = (_text(project.models), _limits_text(project.limits), project.disabled, project.created_at)
    return (project.tenant, project.name, *own)


def _key_row(key: Key) -> Row:
    own = (_text(key.models), _limits_text(key.limits), key.created_at, key.revoked_at)
    return (key.id, key.tenant, key.project, key.tier and key.tier.value, *own)


def _list(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else msgspec.json.decode(text, type=tuple[str, ...])


def _text(models: tuple[str, ...] | None) -> str | None:
    return None if models is None else msgspec.json.encode(models).decode()


def _limits(text: str) -> Limits:
    return Limits(**msgspec.json.decode(text, type=dict[str, int]))


def _limits_text(limits: Limits) -> str:
    found = {name: getattr(limits, name) for name in tenancy.LIMITS}
    return msgspec.json.encode({name: value for name, value in found.items() if value is not None}).decode()
