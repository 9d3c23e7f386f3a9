"""Tenant → project → key: what they are, what may be said of them, and what a key of theirs amounts to.

A tenant pays; its projects are what it uses daemun for; a key belongs to one project. Each level may have limits, all of which
hold, and a list of models, of which a key may use those that are in every list.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from gateway.call_error import CallError
from gateway.errors import InvalidRequest
from gateway.policy.limits import NO_LIMITS, Limits, Scope, Tier

LIMITS = tuple(field.name for field in dataclasses.fields(Limits))
Values = Mapping[str, object]  # fields and what they are to be; for `limits` a mapping of the same kind

_NAME_LENGTH = 64
_MODEL_LENGTH = 200
_MOST_MODELS = 1000
_MOST_WEIGHT = 1000.0
_MOST = 10**15
_RANKS = {tier: rank for rank, tier in enumerate(Tier)}


@dataclass(frozen=True, slots=True)
class Tenant:
    """`models` None means every model; `weight` is its share of its tier, relative to others'."""

    name: str
    tier: Tier = Tier.PAID
    weight: float = 1.0
    models: tuple[str, ...] | None = None
    fallbacks: tuple[str, ...] = ()
    limits: Limits = NO_LIMITS
    disabled: bool = False
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Project:
    tenant: str
    name: str
    models: tuple[str, ...] | None = None
    limits: Limits = NO_LIMITS
    disabled: bool = False
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Key:
    """All of it but the secret. `tier` None means the tenant's, and is never higher than that."""

    id: str
    tenant: str
    project: str
    tier: Tier | None = None
    models: tuple[str, ...] | None = None
    limits: Limits = NO_LIMITS
    created_at: float = 0.0
    revoked_at: float | None = None


class InvalidValue(InvalidRequest):
    en = "'{param}' cannot be set so: {detail}."
    ko = "'{param}' 값을 이렇게 정할 수 없습니다: {detail}."


class Missing(CallError):
    """There is no such tenant, project or key."""

    status, code, type = 404, "not_found", "not_found_error"
    en = "There is no {kind} {name}. 'daemun {kind}s list' shows all of them."
    ko = "{kind} {name}이(가) 없습니다. 전체 목록은 'daemun {kind}s list'로 볼 수 있습니다."


class MissingProject(Missing):
    en = "The tenant {tenant} has no project {name}. 'daemun tenants show {tenant}' shows those that it has."
    ko = "테넌트 {tenant}에 프로젝트 {name}이(가) 없습니다. 있는 것은 'daemun tenants show {tenant}'로 볼 수 있습니다."


class Conflict(CallError):
    status, type = 409, "conflict_error"


class AlreadyThere(Conflict):
    code = "already_exists"
    en = "There is a {kind} {name} already. Choose another name, or change that one."
    ko = "{kind} {name}은(는) 이미 있습니다. 다른 이름을 쓰거나 있는 것을 바꿔 주세요."


class StillUsed(Conflict):
    code = "still_used"
    en = "The {kind} {name} has keys that work ({keys}). Revoke them first, or disable it."
    ko = "{kind} {name}에 아직 쓸 수 있는 키가 있습니다({keys}). 먼저 키를 폐기하거나 사용을 중지해 주세요."


class AlreadyRevoked(Conflict):
    code = "already_revoked"
    en = "The key {name} is revoked already, for good. 'daemun keys create' makes another."
    ko = "키 {name}은(는) 이미 폐기되어 되돌릴 수 없습니다. 'daemun keys create'로 새로 만들어 주세요."


Level = TypeVar("Level", bound=Tenant | Project | Key)


def changed(level: Level, values: Values) -> Level:
    """It with these values; what is left out stays, also among its limits, of which None removes one. Raises InvalidValue."""
    allowed = _FIELDS[type(level)]
    for name in values:
        if name not in allowed:
            raise InvalidValue(param=name, detail=f"there is no such field; the known ones are {', '.join(allowed)}")
    fields: dict[str, Any] = {name: _CHECKS[name](name, value) for name, value in values.items() if name != "limits"}
    if "limits" in values:
        fields["limits"] = _changed_limits(level.limits, values["limits"])
    if isinstance(level, Tenant) and fields.get("tier", level.tier) is None:
        raise InvalidValue(param="tier", detail="a tenant needs one")
    return dataclasses.replace(level, **fields)


def checked_name(param: str, name: object) -> str:
    """Names go into addresses and lists. Raises InvalidValue."""
    if not isinstance(name, str) or not name or name != name.strip() or not name.isprintable():
        raise InvalidValue(param=param, detail="a name is text that can be printed, without spaces around it")
    if len(name) > _NAME_LENGTH:
        raise InvalidValue(param=param, detail=f"a name has at most {_NAME_LENGTH} characters, this one {len(name)}")
    if "/" in name or name in (".", ".."):
        raise InvalidValue(param=param, detail="a name has no slash and is more than dots")
    return name


def check_key(key: Key, tenant: Tenant) -> None:
    """Raises InvalidValue if the key's tier is higher than its tenant's."""
    if key.tier is not None and _RANKS[key.tier] < _RANKS[tenant.tier]:
        raise InvalidValue(
            param="tier",
            detail=f"the tenant {tenant.name} is {tenant.tier.value}, and a key's tier is no higher than its tenant's",
        )


def tier_of(tenant: Tenant, key: Key) -> Tier:
    """The lower of the two: the tenant's may have been lowered since."""
    return tenant.tier if key.tier is None else max(tenant.tier, key.tier, key=_RANKS.__getitem__)


def models_of(tenant: Tenant, project: Project, key: Key) -> frozenset[str] | None:
    """Those in every list; None if there is no list."""
    lists = [frozenset(level.models) for level in (tenant, project, key) if level.models is not None]
    return frozenset.intersection(*lists) if lists else None


def scopes_of(tenant: Tenant, project: Project, key: Key) -> tuple[Scope, ...]:
    """The levels that have limits, the tenant's first."""
    all_of_them = (
        Scope(f"tenant:{tenant.name}", tenant.limits),
        Scope(f"project:{project.tenant}/{project.name}", project.limits),
        Scope(f"key:{key.id}", key.limits),
    )
    return tuple(scope for scope in all_of_them if scope.limits != NO_LIMITS)


def _changed_limits(limits: Limits, values: object) -> Limits:
    if not isinstance(values, Mapping):
        raise InvalidValue(param="limits", detail="limits are an object of names and numbers")
    for name in values:
        if name not in LIMITS:
            raise InvalidValue(param=f"limits.{name}", detail=f"there is no such limit; the known ones are {', '.join(LIMITS)}")
    return dataclasses.replace(limits, **{name: _limit(f"limits.{name}", value) for name, value in values.items()})


def _limit(param: str, value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
        raise InvalidValue(param=param, detail=f"a limit is a whole number from 0 to {_MOST}, or nothing for no limit")
    return value


def _tier(param: str, value: object) -> Tier | None:
    tiers = {tier.value: tier for tier in Tier}
    if value is None or isinstance(value, Tier):
        return value
    if not isinstance(value, str) or value not in tiers:
        raise InvalidValue(param=param, detail=f"a tier is one of {', '.join(tiers)}")
    return tiers[value]


def _weight(param: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or not 0 < value <= _MOST_WEIGHT:
        raise InvalidValue(param=param, detail=f"a weight is a number above 0 and at most {_MOST_WEIGHT:.0f}")
    return float(value)


def _models(param: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(
        isinstance(model, str) and 0 < len(model) <= _MODEL_LENGTH and model.isprintable() for model in value
    ):
        raise InvalidValue(param=param, detail=f"models are a list of names, each of at most {_MODEL_LENGTH} characters")
    if len(value) > _MOST_MODELS:
        raise InvalidValue(param=param, detail=f"a list has at most {_MOST_MODELS} models")
    return tuple(dict.fromkeys(value))


def _models_or_all(param: str, value: object) -> tuple[str, ...] | None:
    return None if value is None else _models(param, value)


def _switch(param: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidValue(param=param, detail="it is true or false")
    return value


_CHECKS: dict[str, Callable[[str, object], object]] = {
    "tier": _tier,
    "weight": _weight,
    "models": _models_or_all,
    "fallbacks": _models,
    "disabled": _switch,
}
_FIELDS: dict[type, tuple[str, ...]] = {
    Tenant: ("tier", "weight", "models", "fallbacks", "limits", "disabled"),
    Project: ("models", "limits", "disabled"),
    Key: ("tier", "models", "limits"),
}
