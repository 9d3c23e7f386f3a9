"""What may be said of tenants, projects and keys, and what a key of theirs amounts to."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.policy.limits import Limits, Tier
from gateway.policy.tenancy import (
    LIMITS,
    InvalidValue,
    Key,
    Project,
    Tenant,
    changed,
    check_key,
    checked_name,
    models_of,
    scopes_of,
    tier_of,
)

TENANT, PROJECT, KEY = Tenant("t"), Project("t", "p"), Key("key_1", "t", "p")
TIERS = some.sampled_from(Tier)
MODELS = some.none() | some.lists(some.sampled_from("abc"), unique=True).map(tuple)


@pytest.mark.parametrize("name", ["a", "학교", "a b", "x" * 64, "한" * 64, "...", "a.b@c:d", "'; DROP TABLE keys"])
def test_names_are_any_text_that_can_be_printed(name: str) -> None:
    assert checked_name("name", name) == name


@pytest.mark.parametrize(
    "name", ["", " ", " a", "a ", "a\n", "a\tb", "a\0", "a\u202eb", "a/b", "/", ".", "..", "x" * 65, None, 5, b"a"]
)
def test_other_names_are_refused_in_one_sentence(name: object) -> None:
    with pytest.raises(InvalidValue) as refused:
        checked_name("name", name)
    assert refused.value.param == "name"
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("level", "values", "param"),
    [
        (TENANT, {"name": "other"}, "name"),
        (TENANT, {"created_at": 0.0}, "created_at"),
        (TENANT, {"tier": "gold"}, "tier"),
        (TENANT, {"tier": None}, "tier"),
        (TENANT, {"weight": 0}, "weight"),
        (TENANT, {"weight": math.nan}, "weight"),
        (TENANT, {"weight": math.inf}, "weight"),
        (TENANT, {"weight": True}, "weight"),
        (TENANT, {"fallbacks": None}, "fallbacks"),
        (TENANT, {"disabled": 1}, "disabled"),
        (TENANT, {"limits": 5}, "limits"),
        (PROJECT, {"tier": "free"}, "tier"),
        (PROJECT, {"models": [""]}, "models"),
        (PROJECT, {"models": ["m" * 201]}, "models"),
        (PROJECT, {"models": "m"}, "models"),
        (PROJECT, {"models": ["m"] * 1001}, "models"),
        (PROJECT, {"limits": {"requests": 1}}, "limits.requests"),
        (KEY, {"revoked_at": None}, "revoked_at"),
        (KEY, {"disabled": True}, "disabled"),
        (KEY, {"limits": {"concurrent": -1}}, "limits.concurrent"),
        (KEY, {"limits": {"concurrent": 1.0}}, "limits.concurrent"),
        (KEY, {"limits": {"concurrent": True}}, "limits.concurrent"),
        (KEY, {"limits": {"concurrent": 10**16}}, "limits.concurrent"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(level: Tenant | Project | Key, values: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        changed(level, values)
    assert refused.value.param == param
    assert "\n" not in str(refused.value)


def test_change_leaves_what_it_does_not_name() -> None:
    one = changed(TENANT, {"tier": "free", "models": ["b", "a", "b"], "limits": {"concurrent": 0, "krw_per_month": 5}})
    assert one == Tenant("t", Tier.FREE, models=("b", "a"), limits=Limits(concurrent=0, krw_per_month=5))
    other = changed(one, {"weight": 3, "limits": {"krw_per_month": None, "tokens_per_day": 7}})
    assert other == Tenant("t", Tier.FREE, 3.0, models=("b", "a"), limits=Limits(concurrent=0, tokens_per_day=7))
    assert changed(other, {}) == other


@given(TIERS, TIERS, TIERS)
def test_keys_tier_is_never_above_its_tenants(at_first: Tier, wished: Tier, later: Tier) -> None:
    ranks = list(Tier)
    tenant, key = Tenant("t", at_first), Key("key_1", "t", "p", tier=wished)
    if ranks.index(wished) < ranks.index(at_first):
        with pytest.raises(InvalidValue, match="no higher than its tenant's"):
            check_key(key, tenant)
    else:
        check_key(key, tenant)
    assert ranks.index(tier_of(Tenant("t", later), key)) == max(ranks.index(later), ranks.index(wished))


@given(MODELS, MODELS, MODELS, some.sampled_from("abcd"))
def test_key_may_use_a_model_that_no_level_forbids(
    of_tenant: tuple[str, ...] | None, of_project: tuple[str, ...] | None, of_key: tuple[str, ...] | None, model: str
) -> None:
    models = models_of(Tenant("t", models=of_tenant), Project("t", "p", models=of_project), Key("key_1", "t", "p", models=of_key))
    forbidden = any(listed is not None and model not in listed for listed in (of_tenant, of_project, of_key))
    assert (models is None or model in models) is not forbidden


@given(some.fixed_dictionaries({level: some.sampled_from(("", *LIMITS)) for level in ("tenant", "project", "key")}))
def test_levels_with_limits_are_scopes_of_different_names(chosen: dict[str, str]) -> None:
    limits = {level: Limits(**{name: 1}) if name else Limits() for level, name in chosen.items()}
    scopes = scopes_of(
        Tenant("t", limits=limits["tenant"]),
        Project("t", "p", limits=limits["project"]),
        Key("key_1", "t", "p", limits=limits["key"]),
    )
    ids = {"tenant": "tenant:t", "project": "project:t/p", "key": "key:key_1"}
    assert [(scope.id, scope.limits) for scope in scopes] == [(ids[level], limits[level]) for level in ids if chosen[level]]
