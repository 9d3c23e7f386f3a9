"""What every TenantStore does: those over SQLite and PostgreSQL, and the fake that the unit tests believe."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from gateway.adapters.fresh_tenants import FreshTenants
from gateway.policy.limits import Limits, Scope, Tier
from gateway.ports import Principal, TenantStore
from tests.contract.stores import Store, open_store
from tests.fakes import FakeClock, FakeTenants


class Office(Protocol):
    """Gives out keys and takes them back; `store` is what is tested."""

    store: TenantStore
    clock: FakeClock

    async def give(self, tenant: str, project: str, models: Sequence[str] | None) -> tuple[str, str]:
        """The secret and the key's id."""
        ...

    async def revoke(self, key_id: str) -> None: ...


class StoreOffice:
    def __init__(self, store: Store) -> None:
        self.clock = store.clock
        self.admin = store.admin
        self.store: TenantStore = FreshTenants(store.tenants, self.clock)

    async def give(self, tenant: str, project: str, models: Sequence[str] | None) -> tuple[str, str]:
        if tenant not in [known.name for known in await self.admin.tenants()]:
            await self.admin.create_tenant(tenant, {})
        if project not in [known.name for known in await self.admin.projects(tenant)]:
            await self.admin.create_project(tenant, project, {})
        secret, key = await self.admin.create_key(tenant, project, {"models": models})
        return secret, key.id

    async def revoke(self, key_id: str) -> None:
        await self.admin.revoke_key(key_id)


class FakeOffice:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.tenants = FakeTenants()
        self.store: TenantStore = self.tenants

    async def give(self, tenant: str, project: str, models: Sequence[str] | None) -> tuple[str, str]:
        secret, key_id = f"dm-{len(self.tenants.keys)}", f"key_{len(self.tenants.keys)}"
        allowed = None if models is None else frozenset(models)
        self.tenants.keys[secret] = Principal(key_id, tenant, project, models=allowed)
        return secret, key_id

    async def revoke(self, key_id: str) -> None:
        self.tenants.keys = {secret: key for secret, key in self.tenants.keys.items() if key.key_id != key_id}


@pytest.fixture(params=["sqlite", "postgres", "fake"])
async def office(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Office]:
    if request.param == "fake":
        yield FakeOffice()
        return
    async with open_store(request, tmp_path) as store:
        yield StoreOffice(store)


async def test_key_tells_whose_it_is(office: Office) -> None:
    secret, key_id = await office.give("가게", "상담봇", ["solar", "exaone"])
    principal = await office.store.principal(secret)
    assert principal == Principal(key_id, "가게", "상담봇", Tier.PAID, frozenset({"solar", "exaone"}))


async def test_key_without_models_may_use_all_and_one_with_none_may_use_none(office: Office) -> None:
    everything, _ = await office.give("a", "p", None)
    nothing, _ = await office.give("a", "p", [])
    free, bound = await office.store.principal(everything), await office.store.principal(nothing)
    assert free is not None
    assert free.may_use("anything")
    assert bound is not None
    assert not bound.may_use("anything")


@pytest.mark.parametrize("secret", ["", "dm-", "dm-nobody", "' OR 1=1 --", "열쇠", "x" * 10_000])
async def test_unknown_key_is_nobodys(office: Office, secret: str) -> None:
    await office.give("a", "p", None)
    assert await office.store.principal(secret) is None


async def test_keys_of_one_tenant_are_told_apart(office: Office) -> None:
    first, second = await office.give("a", "p", None), await office.give("a", "q", None)
    assert first[0] != second[0]
    found = [await office.store.principal(secret) for secret, _ in (first, second)]
    assert [principal.key_id for principal in found if principal] == [first[1], second[1]]


async def test_revoked_key_is_refused_within_two_seconds_and_others_stay(office: Office) -> None:
    revoked, key_id = await office.give("a", "p", None)
    other, _ = await office.give("a", "p", None)
    assert await office.store.principal(revoked) is not None
    await office.revoke(key_id)
    office.clock.advance(2.0)
    assert await office.store.principal(revoked) is None
    assert await office.store.principal(other) is not None


async def test_new_key_works_at_once(office: Office) -> None:
    secret, _ = await office.give("a", "p", None)
    assert await office.store.principal("dm-before") is None
    assert await office.store.principal(secret) is not None


async def test_levels_and_their_limits_come_tenant_first_and_only_where_there_are_any(store: Store) -> None:
    admin = store.admin
    await admin.create_tenant("가게", {"tier": "reserved", "weight": 2, "limits": {"requests_per_minute": 9, "krw_per_month": 5}})
    await admin.create_project("가게", "상담봇", {})
    secret, key = await admin.create_key("가게", "상담봇", {"tier": "free", "limits": {"concurrent": 0}})
    principal = await store.tenants.principal(secret)
    assert principal is not None
    assert (principal.tier, principal.weight) == (Tier.FREE, 2.0)
    tenant = Scope("tenant:가게", Limits(requests_per_minute=9, krw_per_month=5))
    assert principal.scopes == (tenant, Scope(f"key:{key.id}", Limits(concurrent=0)))
    await admin.change_project("가게", "상담봇", {"limits": {"tokens_per_day": 7}})
    principal = await store.tenants.principal(secret)
    assert principal is not None
    assert principal.scopes == (
        tenant,
        Scope("project:가게/상담봇", Limits(tokens_per_day=7)),
        Scope(f"key:{key.id}", Limits(concurrent=0)),
    )


async def test_key_may_use_the_models_that_every_level_allows(store: Store) -> None:
    await store.admin.create_tenant("a", {"models": ["solar", "exaone", "kanana"], "fallbacks": ["kanana", "exaone", "other"]})
    await store.admin.create_project("a", "p", {"models": ["exaone", "solar", "midm"]})
    secret, key = await store.admin.create_key("a", "p", {"models": None})
    principal = await store.tenants.principal(secret)
    assert principal is not None
    assert principal.models == frozenset({"solar", "exaone"})
    assert principal.fallbacks == ("exaone",), "those that the key may use, in their order"
    await store.admin.change_key(key.id, {"models": ["exaone"]})
    principal = await store.tenants.principal(secret)
    assert principal is not None
    assert principal.models == frozenset({"exaone"})


async def test_key_goes_down_with_its_tenants_tier(store: Store) -> None:
    await store.admin.create_tenant("a", {"tier": "paid"})
    await store.admin.create_project("a", "p", {})
    secret, _ = await store.admin.create_key("a", "p", {"tier": "free"})
    await store.admin.change_tenant("a", {"tier": "batch"})
    principal = await store.tenants.principal(secret)
    assert principal is not None
    assert principal.tier is Tier.BATCH


@pytest.mark.parametrize("level", ["tenant", "project"])
async def test_keys_of_what_is_disabled_are_nobodys_until_it_is_enabled(store: Store, level: str) -> None:
    await store.admin.create_tenant("a", {})
    await store.admin.create_project("a", "p", {})
    secret, _ = await store.admin.create_key("a", "p", {})

    async def switch(disabled: bool) -> None:
        if level == "tenant":
            await store.admin.change_tenant("a", {"disabled": disabled})
        else:
            await store.admin.change_project("a", "p", {"disabled": disabled})

    await switch(True)
    assert await store.tenants.principal(secret) is None
    await switch(False)
    assert await store.tenants.principal(secret) is not None
