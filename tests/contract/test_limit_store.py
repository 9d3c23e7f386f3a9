"""What every LimitStore does: that of the only worker, and that of one of several on a real Redis."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.adapters.lease_file import LeaseFile
from gateway.adapters.local_limits import LocalGrants
from gateway.adapters.metered_limits import MeteredLimits
from gateway.adapters.redis_limits import RedisGrants, WithoutRedis
from gateway.adapters.system_clock import SystemClock
from gateway.call_error import CallError
from gateway.errors import InsufficientQuota, PromptOverLimit, RateLimitExceeded
from gateway.policy.limits import Limits, Scope
from gateway.ports import Principal
from gateway.protocol import openai
from gateway.protocol.endpoint import AT, CHAT
from gateway.protocol.openai import Request
from gateway.protocol.usage import Usage
from tests.redis_server import redis_server

OFFSET_MS = 9 * 3_600_000
TOKENIZED = 40


def request(text: str = "안녕?", **fields: object) -> Request:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **fields}
    return openai.read(json.dumps(body, ensure_ascii=False).encode(), CHAT)


def principal(tenant: Limits, project: Limits | None = None, key: Limits | None = None, *, name: str = "가게") -> Principal:
    scopes = [Scope(f"tenant:{name}", tenant)]
    scopes += [Scope(f"project:{name}/상담", project)] if project else []
    scopes += [Scope(f"key:{name}", key)] if key else []
    return Principal(f"key_{name}_{project}_{key}", name, "상담", scopes=tuple(scopes))


@pytest.fixture(params=["local", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MeteredLimits]:
    clock, file = SystemClock(), LeaseFile(tmp_path / "leases")

    async def count(_: Request) -> int | None:
        return TOKENIZED

    def price(model: str, used: Usage) -> int:
        return 1_000_000 * (used.prompt_tokens + (used.completion_tokens or 0))

    if request.param == "local":
        async with LocalGrants(file, clock, offset_ms=OFFSET_MS) as local:
            yield MeteredLimits(local, clock, count_tokens=count, price=price)
        return
    with redis_server(tmp_path) as server:
        with server.client() as client:  # as if it had run for long: no time of grace at the start
            client.hset(
                "daemun:{workers}:epoch",
                mapping={"run": client.info("server")["run_id"], "beat": 1e14, "until": 0},
            )
        async with RedisGrants(server.url, file, clock, offset_ms=OFFSET_MS, without=WithoutRedis()) as shared:
            yield MeteredLimits(shared, clock, count_tokens=count, price=price)


async def refused(store: MeteredLimits, who: Principal, what: Request) -> CallError:
    with pytest.raises(CallError) as caught:
        await store.reserve(who, what)
    return caught.value


async def test_who_has_no_limits_is_not_limited_and_told_nothing(store: MeteredLimits) -> None:
    reservation = await store.reserve(Principal("k", "t", "p"), request())
    assert reservation.headers() == ()
    reservation.settle(Usage(1, 1))


async def test_exactly_so_many_requests(store: MeteredLimits) -> None:
    who = principal(Limits(requests_per_day=7))
    for _ in range(7):
        (await store.reserve(who, request())).settle(Usage(5, 5))
    error = await refused(store, who, request())
    assert isinstance(error, RateLimitExceeded)
    assert 0 < (error.retry_after_s or 0) <= 86_401
    assert "7 requests a day" in error.message("en")
    assert "일일 요청" in error.message("ko")


async def test_tightest_level_holds_and_levels_are_shared(store: MeteredLimits) -> None:
    tenant, key = Limits(requests_per_day=5), Limits(requests_per_day=2)
    first, second = principal(tenant, key=key), principal(tenant)
    for _ in range(2):
        await store.reserve(first, request())
    error = await refused(store, first, request())
    assert "key" in error.message("en")
    for _ in range(3):
        await store.reserve(second, request())
    assert "tenant" in (await refused(store, second, request())).message("en")


async def test_rejected_calls_consume_nothing_at_any_level(store: MeteredLimits) -> None:
    who = principal(Limits(requests_per_day=5), key=Limits(concurrent=1))
    held = await store.reserve(who, request())
    for _ in range(20):
        await refused(store, who, request())
    held.settle(Usage(1, 1))
    for _ in range(4):
        (await store.reserve(who, request())).settle(Usage(1, 1))
    assert "requests a day" in (await refused(store, who, request())).message("en")


async def test_call_that_was_never_served_gives_everything_back(store: MeteredLimits) -> None:
    who = principal(Limits(requests_per_day=2, tokens_per_day=1000))
    for _ in range(10):
        (await store.reserve(who, request())).settle(None)
    (await store.reserve(who, request())).settle(Usage(10, 10))
    headers = dict((await store.reserve(who, request())).headers())
    assert headers[b"x-ratelimit-limit-requests"] == b"2"
    assert headers[b"x-ratelimit-remaining-requests"] == b"0"


async def test_settling_twice_changes_nothing(store: MeteredLimits) -> None:
    who = principal(Limits(concurrent=1))
    held = await store.reserve(who, request())
    held.settle(None)
    held.settle(None)
    await store.reserve(who, request())
    await refused(store, who, request())


async def test_tokens_are_settled_with_the_engines_counts(store: MeteredLimits) -> None:
    who = principal(Limits(tokens_per_day=10_000))
    for _ in range(3):
        (await store.reserve(who, request())).settle(Usage(1000, 1000))
    headers = dict((await store.reserve(who, request())).headers())
    assert headers[b"x-ratelimit-limit-tokens"] == b"10000"
    assert 0 < int(headers[b"x-ratelimit-remaining-tokens"]) <= 4000


async def test_what_was_used_beyond_is_owed(store: MeteredLimits) -> None:
    who = principal(Limits(tokens_per_minute=1000))
    (await store.reserve(who, request())).settle(Usage(500, 2800))
    error = await refused(store, who, request())
    assert isinstance(error, RateLimitExceeded)
    assert (error.retry_after_s or 0) > 60, "the next window is owed, too"


async def test_month_that_is_used_up_is_no_reason_to_retry(store: MeteredLimits) -> None:
    for number, limits in enumerate((Limits(tokens_per_month=100), Limits(krw_per_month=100))):
        who = principal(limits, name=f"t{number}")
        (await store.reserve(who, request())).settle(Usage(50, 60))
        error = await refused(store, who, request())
        assert isinstance(error, InsufficientQuota)
        assert error.retry_after_s is None
        assert " 100 " in error.message("en")


async def test_prompt_is_counted_where_its_bound_does_not_fit(store: MeteredLimits) -> None:
    """900 bytes could be 900 tokens, of which the limit has 300; the tokenizer says 40."""
    who = principal(Limits(tokens_per_day=300))
    (await store.reserve(who, request("가" * 300, max_tokens=20))).settle(Usage(40, 20))


async def test_prompt_over_the_whole_limit_can_never_be_sent(store: MeteredLimits) -> None:
    who = principal(Limits(tokens_per_day=TOKENIZED - 10))
    error = await refused(store, who, request("가" * 300, max_tokens=1))
    assert isinstance(error, PromptOverLimit)
    assert (error.status, error.retry_after_s) == (400, None)
    assert "40 tokens" in error.message("en")


async def test_huge_max_tokens_does_not_starve(store: MeteredLimits) -> None:
    who = principal(Limits(tokens_per_day=5000))
    for _ in range(50):
        (await store.reserve(who, request(max_tokens=4096))).settle(Usage(10, 20))


async def test_counting_tokens_costs_none(store: MeteredLimits) -> None:
    who = principal(Limits(tokens_per_day=1))
    body = '{"model":"m","prompt":"안녕"}'.encode()
    for _ in range(5):
        (await store.reserve(who, openai.read(body, AT["/tokenize"]))).settle(Usage(0, 0))


async def test_limit_that_is_changed_holds_at_once(store: MeteredLimits) -> None:
    for _ in range(3):
        await store.reserve(principal(Limits(requests_per_day=3)), request())
    await refused(store, principal(Limits(requests_per_day=3)), request())
    for _ in range(2):
        await store.reserve(principal(Limits(requests_per_day=5)), request())
    await refused(store, principal(Limits(requests_per_day=5)), request())
    await refused(store, principal(Limits(requests_per_day=1)), request())


async def test_limit_of_nothing_lets_nothing_through(store: MeteredLimits) -> None:
    for number, limits in enumerate((Limits(requests_per_day=0), Limits(concurrent=0), Limits(tokens_per_day=0))):
        await refused(store, principal(limits, name=f"t{number}"), request())
