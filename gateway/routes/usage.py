"""`/v1/usage`: what a key has used, from the ledger. An entry is there about a second after its call ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, time, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from gateway.errors import InvalidField
from gateway.ledger_query import SEOUL, Group, LedgerQuery, UsageStore, UsageSum
from gateway.pipeline import Pipeline
from gateway.ports import Clock
from gateway.protocol import credential

_DAYS = 30
_GROUPS = {"day": Group.DAY, "model": Group.MODEL}
_MOMENT = "Seconds since the epoch, 2026-11-22, or 2026-11-22T09:00:00; Asia/Seoul where no zone is given."


class Used(BaseModel):
    """Cached tokens are counted in the prompt's, reasoning tokens in the completion's."""

    day: str | None = Field(None, description="Asia/Seoul's.")
    model: str | None = None
    calls: int
    completed: int
    aborted: int = Field(description="Left by their clients before the end; what was sent until then is counted.")
    rejected: int = Field(description="Before an engine worked; they have no tokens.")
    failed: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost_krw: float = Field(description="Net.")
    energy_wh_estimate: float = Field(description="An estimate from figures of the model, not measured.")
    estimated_calls: int = Field(description="Calls whose token counts are estimates, since their engine told none.")


class UsageList(BaseModel):
    object: str = "list"
    since: datetime
    until: datetime
    data: list[Used]


def router(pipeline: Pipeline, usage: UsageStore, clock: Clock) -> APIRouter:
    routes = APIRouter(prefix="/v1/usage", tags=["usage"])

    @routes.get("", summary="What this key has used · 이 키의 사용량")
    async def get_usage(
        request: Request,
        since: Annotated[str | None, Query(description=f"From then on; default: {_DAYS} days ago. {_MOMENT}")] = None,
        until: Annotated[str | None, Query(description=f"Up to then, without it; default: now. {_MOMENT}")] = None,
        group_by: Annotated[str, Query(description="`day`, `model`, or both with a comma between; default: one sum.")] = "",
    ) -> UsageList:
        headers = request.headers
        key = credential.presented(headers.get("authorization", ""), headers.get("x-api-key", ""))
        principal = await pipeline.identify(key)
        end = _moment("until", until) or datetime.fromtimestamp(clock.time(), SEOUL)
        begin = _moment("since", since) or end - timedelta(days=_DAYS)
        groups = list(_groups(group_by))
        query = LedgerQuery(since=begin.timestamp(), until=end.timestamp(), tenant=principal.tenant, key_id=principal.key_id)
        sums = await usage.sums(query, groups)
        return UsageList(since=begin, until=end, data=[_used(one, groups) for one in sums])

    return routes


def _moment(param: str, given: str | None) -> datetime | None:
    """Raises InvalidField."""
    if not given:
        return None
    try:
        if given.isascii() and given.isdigit():
            return datetime.fromtimestamp(int(given), SEOUL)
        read = datetime.fromisoformat(given) if len(given) > len("2026-11-22") else datetime.combine(_date(given), time())
        return (read if read.tzinfo else read.replace(tzinfo=SEOUL)).astimezone(SEOUL)
    except (ValueError, OverflowError, OSError) as problem:
        raise InvalidField(
            param=param, detail="it must be a time such as 1795273200, 2026-11-22 or 2026-11-22T09:00:00"
        ) from problem


def _date(given: str) -> datetime:
    return datetime.strptime(given, "%Y-%m-%d")


def _groups(given: str) -> Iterator[Group]:
    """Raises InvalidField."""
    names = [name.strip() for name in given.split(",")] if given else []
    if len(set(names)) < len(names) or not set(names) <= set(_GROUPS):
        raise InvalidField(param="group_by", detail="it must be 'day', 'model' or 'day,model'")
    yield from (_GROUPS[name] for name in names)


def _used(one: UsageSum, groups: Sequence[Group]) -> Used:
    named = dict(zip(groups, one.group, strict=True))
    return Used(
        day=named.get(Group.DAY),
        model=named.get(Group.MODEL),
        calls=one.calls,
        completed=one.completed,
        aborted=one.aborted,
        rejected=one.rejected,
        failed=one.failed,
        prompt_tokens=one.prompt_tokens,
        cached_tokens=one.cached_tokens,
        completion_tokens=one.completion_tokens,
        reasoning_tokens=one.reasoning_tokens,
        cost_krw=one.cost_ukrw / 1e6,
        energy_wh_estimate=one.energy_wh,
        estimated_calls=one.estimated,
    )
