"""Days and months go on where Redis has lost its data, by what the ledger knows: no more is let through, and no less."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.adapters import redis_limits, sqlite, sqlite_ledger
from gateway.adapters.lease_file import LeaseFile, lease_folder
from gateway.adapters.ledger_sums import Sum
from gateway.adapters.metered_limits import MeteredLimits
from gateway.adapters.redis_limits import RedisGrants, WithoutRedis
from gateway.adapters.system_clock import SystemClock
from gateway.errors import InsufficientQuota, LimitsUnavailable, RateLimitExceeded, UsageUnavailable
from gateway.policy.limits import Limits
from gateway.protocol.usage import Usage
from tests.contract.test_limit_store import OFFSET_MS, principal, request
from tests.integration.limits.conftest import Start, Workers, say
from tests.integration.limits.test_redis_grants import admitted
from tests.integration.limits.test_worker_processes import call_all, statuses
from tests.redis_server import RedisServer

LIMIT = 60


def entries(workers: Workers) -> int:
    with closing(sqlite.connect(sqlite.store_path(workers.state_dir))) as store:
        return len([entry for entry in sqlite_ledger.read_entries(store, last=1000) if entry.replica])


def until_ledger_has(workers: Workers, count: int) -> None:
    end = time.monotonic() + 30
    while entries(workers) < count:
        assert time.monotonic() < end, f"{entries(workers)} entries"
        time.sleep(0.05)


def forget(workers: Workers, *numbers: int) -> None:
    """These workers' machine is gone: their processes and their files."""
    workers.kill(*numbers)
    for number in numbers:
        for lease in lease_folder(workers.state_dir).glob(f"{workers.processes[number].pid}-*"):
            lease.unlink()


async def test_whole_installation_and_redis_are_gone_and_the_day_goes_on(start: Start, server: RedisServer) -> None:
    workers = start(2, {"requests_per_day": LIMIT})
    before = statuses(await call_all(workers, workers.urls, 40))
    await asyncio.to_thread(until_ledger_has, workers, 40)
    forget(workers, 0, 1)
    server.kill()
    server.start()
    again = start(2, {"requests_per_day": LIMIT})
    after = statuses(await call_all(again, again.urls, LIMIT))
    say(f"all is gone but the ledger: {before[200]} of {LIMIT} admitted before, {after[200]} after")
    assert (before[200], after) == (40, {200: LIMIT - 40, 429: 40})


@pytest.mark.parametrize("data", ["kept", "lost"])
async def test_one_machine_and_redis_are_gone_and_those_who_are_left_share_the_rest(
    start: Start, server: RedisServer, data: str
) -> None:
    workers = start(3, {"requests_per_day": LIMIT})
    said = statuses(await call_all(workers, workers.urls, 30))
    await asyncio.to_thread(until_ledger_has, workers, 30)
    if data == "kept":
        await asyncio.sleep(2.5)  # what is idle has been given back by then, and told
        server.save()
    server.kill()
    forget(workers, 0)
    server.start()
    left, back_at = workers.urls[1:], time.monotonic()
    while said[200] < LIMIT and time.monotonic() < back_at + 15:
        said += statuses(await call_all(workers, left, 10))
        await asyncio.sleep(0.3)
    took_s = time.monotonic() - back_at
    said += statuses(await call_all(workers, left, 30))
    say(
        f"one of three machines gone, Redis' data {data}: {said[200]} of {LIMIT} admitted in all, {took_s:.1f} s after its return"
    )
    assert 0.98 * LIMIT <= said[200] <= LIMIT


@dataclass
class Ledger:
    """What it knows, if it can be asked."""

    known: list[Sum] = field(default_factory=list)
    is_down: bool = False
    asked: int = 0

    async def since(self, unix_s: float) -> Sequence[Sum]:
        self.asked += 1
        if self.is_down:
            raise UsageUnavailable
        return self.known


async def test_nothing_of_a_day_is_given_before_the_ledger_was_asked(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_limits, "_READ_S", 0.1)
    monkeypatch.setattr(redis_limits, "_ASK_AGAIN_S", 0.2)
    ledger, clock = Ledger([Sum("가게", "상담", "가게", 15, 900, 0)], is_down=True), SystemClock()
    day, month, minute = Limits(requests_per_day=20), Limits(tokens_per_month=1000), Limits(requests_per_minute=5)
    async with RedisGrants(
        server.url, LeaseFile(tmp_path / "leases"), clock, offset_ms=OFFSET_MS, without=WithoutRedis(), sums=ledger
    ) as grants:
        store = MeteredLimits(grants, clock)
        through, refused = await admitted(store, day, 2)
        assert through == 0
        assert isinstance(refused, LimitsUnavailable)
        assert (await admitted(store, minute, 1))[0] == 1, "minutes do not need it"
        ledger.is_down = False
        await asyncio.sleep(1.0)
        through, refused = await admitted(store, day, 20)
        assert through == 5
        assert isinstance(refused, RateLimitExceeded)
        (await store.reserve(principal(month), request(max_tokens=20))).settle(Usage(90, 20))
        _, refused = await admitted(store, month, 1)
        assert isinstance(refused, InsufficientQuota)
        asked = ledger.asked
        await asyncio.sleep(2.5)
        assert ledger.asked == asked, "once"
