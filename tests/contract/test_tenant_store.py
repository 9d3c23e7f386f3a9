"""What every TenantStore does: the one over SQLite, and the fake that the unit tests believe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

import pytest

from gateway.adapters import sqlite, sqlite_tenants
from gateway.adapters.fresh_tenants import FreshTenants
from gateway.policy.limits import Tier
from gateway.ports import Principal, TenantStore
from tests.fakes import FakeClock, FakeTenants


class Office(Protocol):
    """Gives out keys and takes them back; `store` is what is tested."""

    store: TenantStore
    clock: FakeClock

    def give(self, tenant: str, project: str, models: Sequence[str] | None) -> tuple[str, str]:
        """The secret and the key's id."""
        ...

    def revoke(self, key_id: str) -> None: ...


class SqliteOffice:
    def __init__(self, path: Path) -> None:
        self.clock = FakeClock()
        self.connection = sqlite.connect(path)
        self.store: TenantStore = FreshTenants(sqlite_tenants.SqliteTenants(self.connection), self.clock)

    def give(self, tenant: str, project: str, models: Sequence[str] | None) -> tuple[str, str]:
        secret, info = sqlite_tenants.create_key(self.connection, self.clock, tenant=tenant, project=project, models=models)
        return secret, info.id

    def revoke(self, key_id: str) -> None:
        sqlite_tenants.revoke_key(self.connection, self.clock, key_id)


class FakeOffice:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.tenants = FakeTenants()
        self.store: TenantStore = self.tenants

    def give(self, tenant: str, project: str, models: Sequence[str] | None) -> tuple[str, str]:
        secret, key_id = f"dm-{len(self.tenants.keys)}", f"key_{len(self.tenants.keys)}"
        allowed = None if models is None else frozenset(models)
        self.tenants.keys[secret] = Principal(key_id, tenant, project, models=allowed)
        return secret, key_id

    def revoke(self, key_id: str) -> None:
        self.tenants.keys = {secret: key for secret, key in self.tenants.keys.items() if key.key_id != key_id}


@pytest.fixture(params=["sqlite", "fake"])
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    if request.param == "fake":
        yield FakeOffice()
        return
    made = SqliteOffice(tmp_path / "store.sqlite3")
    with closing(made.connection):
        yield made


async def test_key_tells_whose_it_is(office: Office) -> None:
    secret, key_id = office.give("가게", "상담봇", ["solar", "exaone"])
    principal = await office.store.principal(secret)
    assert principal == Principal(key_id, "가게", "상담봇", Tier.PAID, frozenset({"solar", "exaone"}))


async def test_key_without_models_may_use_all_and_one_with_none_may_use_none(office: Office) -> None:
    everything, _ = office.give("a", "p", None)
    nothing, _ = office.give("a", "p", [])
    free, bound = await office.store.principal(everything), await office.store.principal(nothing)
    assert free is not None
    assert free.may_use("anything")
    assert bound is not None
    assert not bound.may_use("anything")


@pytest.mark.parametrize("secret", ["", "dm-", "dm-nobody", "' OR 1=1 --", "열쇠", "x" * 10_000])
async def test_unknown_key_is_nobodys(office: Office, secret: str) -> None:
    office.give("a", "p", None)
    assert await office.store.principal(secret) is None


async def test_keys_of_one_tenant_are_told_apart(office: Office) -> None:
    first, second = office.give("a", "p", None), office.give("a", "q", None)
    assert first[0] != second[0]
    found = [await office.store.principal(secret) for secret, _ in (first, second)]
    assert [principal.key_id for principal in found if principal] == [first[1], second[1]]


async def test_revoked_key_is_refused_within_two_seconds_and_others_stay(office: Office) -> None:
    revoked, key_id = office.give("a", "p", None)
    other, _ = office.give("a", "p", None)
    assert await office.store.principal(revoked) is not None
    office.revoke(key_id)
    office.clock.advance(2.0)
    assert await office.store.principal(revoked) is None
    assert await office.store.principal(other) is not None


async def test_new_key_works_at_once(office: Office) -> None:
    secret, _ = office.give("a", "p", None)
    assert await office.store.principal("dm-before") is None
    assert await office.store.principal(secret) is not None
