"""What every TenantAdmin does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway.call_error import CallError
from gateway.policy.limits import Limits, Tier
from gateway.policy.tenancy import AlreadyRevoked, AlreadyThere, InvalidValue, Missing, Project, StillUsed, Tenant
from gateway.tenant_admin import TenantAdmin
from tests.contract.stores import Store

EVERYTHING = {"tier": "free", "weight": 0.5, "models": ["대문/m"], "fallbacks": ["작은/m"], "limits": {"tokens_per_day": 2**40}}


@pytest.fixture
def admin(store: Store) -> TenantAdmin:
    return store.admin


@pytest.fixture
async def school(admin: TenantAdmin) -> Tenant:
    made = await admin.create_tenant("school", {})
    await admin.create_project("school", "homework", {})
    return made


async def test_tenant_comes_back_as_it_was_made_and_changed(store: Store, admin: TenantAdmin) -> None:
    limits = Limits(tokens_per_day=2**40)
    made = Tenant("학교", Tier.FREE, 0.5, ("대문/m",), ("작은/m",), limits, disabled=False, created_at=store.clock.time())
    assert await admin.create_tenant("학교", EVERYTHING) == made
    assert await admin.tenant("학교") == made
    plain = await admin.create_tenant("a", {})
    assert await admin.tenants() == [plain, made], "by name"
    changed = await admin.change_tenant("학교", {"models": None, "limits": {"concurrent": 3, "tokens_per_day": None}})
    assert (changed.models, changed.limits, changed.tier) == (None, Limits(concurrent=3), Tier.FREE)
    assert await admin.tenant("학교") == changed


async def test_project_comes_back_as_it_was_made_and_changed(store: Store, admin: TenantAdmin, school: Tenant) -> None:
    made = await admin.create_project("school", "숙제", {"models": ["m"], "limits": {"concurrent": 1}})
    assert made == Project("school", "숙제", ("m",), Limits(concurrent=1), created_at=store.clock.time())
    assert [project.name for project in await admin.projects("school")] == ["homework", "숙제"]
    changed = await admin.change_project("school", "숙제", {"disabled": True})
    assert await admin.project("school", "숙제") == changed
    assert (changed.disabled, changed.models) == (True, ("m",))


async def test_key_comes_back_as_it_was_made_and_changed_and_revoked(store: Store, admin: TenantAdmin, school: Tenant) -> None:
    secret, made = await admin.create_key("school", "homework", {"tier": "batch", "models": [], "limits": {"concurrent": 1}})
    assert (made.tier, made.models, made.limits, made.revoked_at) == (Tier.BATCH, (), Limits(concurrent=1), None)
    assert secret not in repr(made)
    store.clock.advance(1)
    _, other = await admin.create_key("school", "homework", {})
    assert await admin.keys() == await admin.keys("school") == await admin.keys("school", "homework") == [made, other]
    assert await admin.keys("school", "other") == await admin.keys("nobody") == []
    changed = await admin.change_key(made.id, {"tier": None, "limits": {"concurrent": None}})
    assert (changed.tier, changed.limits) == (None, Limits())
    assert (await admin.revoke_key(made.id)).revoked_at == store.clock.time()
    assert (await admin.key(made.id)).revoked_at == store.clock.time()
    with pytest.raises(AlreadyRevoked, match="for good"):
        await admin.revoke_key(made.id)


async def test_keys_are_random_and_never_the_same(admin: TenantAdmin, school: Tenant) -> None:
    secrets = {(await admin.create_key("school", "homework", {}))[0] for _ in range(20)}
    assert len(secrets) == 20
    assert all(len(secret) >= len("dm-") + 43 for secret in secrets), "256 bits"


async def test_what_is_there_is_not_made_again(admin: TenantAdmin, school: Tenant) -> None:
    with pytest.raises(AlreadyThere, match="tenant school already"):
        await admin.create_tenant("school", {"tier": "free"})
    with pytest.raises(AlreadyThere, match="project homework already"):
        await admin.create_project("school", "homework", {})
    assert (await admin.tenant("school")).tier is Tier.PAID


@pytest.mark.parametrize(
    "ask",
    [
        lambda admin: admin.tenant("nobody"),
        lambda admin: admin.change_tenant("nobody", {}),
        lambda admin: admin.delete_tenant("nobody"),
        lambda admin: admin.projects("nobody"),
        lambda admin: admin.create_project("nobody", "p", {}),
        lambda admin: admin.project("nobody", "p"),
        lambda admin: admin.project("school", "nothing"),
        lambda admin: admin.change_project("school", "nothing", {}),
        lambda admin: admin.delete_project("school", "nothing"),
        lambda admin: admin.create_key("nobody", "p", {}),
        lambda admin: admin.create_key("school", "nothing", {}),
        lambda admin: admin.key("key_none"),
        lambda admin: admin.change_key("key_none", {}),
        lambda admin: admin.revoke_key("key_none"),
    ],
)
async def test_what_is_missing_is_said_with_where_to_look(
    admin: TenantAdmin, school: Tenant, ask: Callable[[TenantAdmin], Awaitable[object]]
) -> None:
    with pytest.raises(Missing, match=r"daemun (tenants|keys) (list|show)"):
        await ask(admin)


async def test_nothing_is_changed_by_what_is_refused(admin: TenantAdmin, school: Tenant) -> None:
    with pytest.raises(InvalidValue):
        await admin.change_tenant("school", {"tier": "free", "weight": -1})
    with pytest.raises(InvalidValue):
        await admin.create_tenant("a/b", {})
    with pytest.raises(InvalidValue, match="no higher than its tenant"):
        await admin.create_key("school", "homework", {"tier": "reserved"})
    assert await admin.tenants() == [school]
    assert await admin.keys() == []


async def test_what_has_keys_that_work_is_not_deleted(admin: TenantAdmin, school: Tenant) -> None:
    _, key = await admin.create_key("school", "homework", {})
    for delete in (admin.delete_tenant("school"), admin.delete_project("school", "homework")):
        with pytest.raises(StillUsed, match=key.id):
            await delete
    await admin.revoke_key(key.id)
    await admin.delete_project("school", "homework")
    assert await admin.projects("school") == []
    assert await admin.keys() == []
    await admin.create_project("school", "other", {})
    await admin.delete_tenant("school")
    assert await admin.tenants() == []


async def test_changes_at_once_are_made_one_after_the_other(admin: TenantAdmin, school: Tenant) -> None:
    """Each changes what it names, on top of what the others did."""
    fields = ["requests_per_minute", "requests_per_day", "tokens_per_minute", "tokens_per_day", "concurrent", "tokens_per_month"]
    await asyncio.gather(*(admin.change_tenant("school", {"limits": {field: 5}}) for field in fields))
    assert (await admin.tenant("school")).limits == Limits(**dict.fromkeys(fields, 5))


async def test_one_of_those_who_make_the_same_at_once_succeeds(admin: TenantAdmin) -> None:
    made = await asyncio.gather(*(admin.create_tenant("a", {}) for _ in range(8)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in made) == ["AlreadyThere"] * 7 + ["Tenant"]
    assert all(isinstance(one, CallError | Tenant) for one in made)


async def test_who_gives_up_in_the_middle_of_a_change_holds_up_nobody(admin: TenantAdmin, school: Tenant) -> None:
    for turn in range(40):
        change = asyncio.create_task(admin.change_tenant("school", {"weight": turn + 1}))
        await asyncio.sleep(turn / 10_000)
        change.cancel()
        await asyncio.gather(change, return_exceptions=True)
    assert (await admin.change_tenant("school", {"weight": 99})).weight == 99.0
