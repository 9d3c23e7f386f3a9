"""Times and counts in virtual time: Retry-After comes true, windows turn, debts are paid, restarts forget nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters import meter_book
from gateway.adapters.lease_file import LeaseFile
from gateway.adapters.ledger_sums import StoreSums
from gateway.adapters.local_limits import LocalGrants
from gateway.adapters.metered_limits import MeteredLimits, reset_text
from gateway.adapters.sqlite_ledger import SqliteLedger
from gateway.call_error import CallError
from gateway.ledger_query import Group, LedgerQuery, UsageSum
from gateway.policy.estimate import Habits
from gateway.policy.limits import Limits
from gateway.policy.meter import Kind, Meter
from gateway.policy.window import phase_of
from gateway.ports import Principal
from gateway.protocol.usage import Usage
from tests.contract.test_limit_store import OFFSET_MS, principal, request
from tests.entries import entry, rows
from tests.fakes import FakeClock

SCOPE = "tenant:가게"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(clock: FakeClock, tmp_path: Path) -> AsyncIterator[MeteredLimits]:
    async with LocalGrants(LeaseFile(tmp_path), clock, offset_ms=OFFSET_MS) as grants:
        yield MeteredLimits(grants, clock)


async def refusal(store: MeteredLimits, who: Principal) -> CallError:
    with pytest.raises(CallError) as caught:
        await store.reserve(who, request())
    return caught.value


@pytest.mark.parametrize(
    "limits",
    [
        Limits(requests_per_minute=3),
        Limits(requests_per_day=3),
        Limits(requests_per_minute=3, requests_per_day=4),
        Limits(tokens_per_minute=900, requests_per_day=9),
    ],
)
@pytest.mark.parametrize("overuse", [0, 5000])
async def test_client_that_waits_as_long_as_it_is_told_succeeds(
    store: MeteredLimits, clock: FakeClock, limits: Limits, overuse: int
) -> None:
    who = principal(limits)
    for _ in range(5):
        while True:
            try:
                reservation = await store.reserve(who, request())
            except CallError as error:
                wait_s = error.whole_retry_after_s
                break
            reservation.settle(Usage(300, 300 + overuse))
        assert wait_s is not None
        clock.advance(wait_s)
        (await store.reserve(who, request())).settle(Usage(300, overuse))


async def test_retry_after_is_not_longer_than_it_has_to_be(store: MeteredLimits, clock: FakeClock) -> None:
    who = principal(Limits(requests_per_minute=1))
    await store.reserve(who, request())
    wait_s = (await refusal(store, who)).whole_retry_after_s or 0
    clock.advance(wait_s - 1.1)
    await refusal(store, who)


async def test_steady_use_of_all_of_a_limit_is_never_refused(store: MeteredLimits, clock: FakeClock) -> None:
    who = principal(Limits(requests_per_minute=60))
    clock.advance((await_turn(clock)) + 0.5)
    for _ in range(600):
        (await store.reserve(who, request())).settle(Usage(1, 1))
        clock.advance(1.0)


def await_turn(clock: FakeClock) -> float:
    """Seconds to the next turn of the scope's minute."""
    return 60 - (clock.time() + phase_of(SCOPE) / 1000) % 60


async def test_place_is_promised_for_when_calls_usually_end(store: MeteredLimits, clock: FakeClock) -> None:
    who = principal(Limits(concurrent=1))
    for _ in range(5):
        held = await store.reserve(who, request())
        clock.advance(8.0)
        held.settle(Usage(1, 1))
    await store.reserve(who, request())
    assert (await refusal(store, who)).whole_retry_after_s == 8


async def test_headers_of_a_refusal_say_how_the_tightest_limit_stands(store: MeteredLimits, clock: FakeClock) -> None:
    who = principal(Limits(requests_per_minute=2, requests_per_day=100, tokens_per_day=100_000))
    clock.advance(await_turn(clock))
    for _ in range(2):
        (await store.reserve(who, request())).settle(Usage(10, 20))
    clock.advance(10.0)
    headers = dict((await refusal(store, who)).headers())
    assert headers[b"retry-after"] == b"51"
    assert headers[b"x-ratelimit-limit-requests"] == b"2"
    assert headers[b"x-ratelimit-remaining-requests"] == b"0"
    assert headers[b"x-ratelimit-reset-requests"] == b"50s"
    assert headers[b"x-ratelimit-remaining-tokens"] == b"99940"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (0, "0s"), (0.2, "1s"), (59.5, "1m0s"), (360, "6m0s"), (7200, "2h0m0s"), (86_399, "23h59m59s")],
)
def test_resets_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert reset_text(seconds) == text


@pytest.mark.parametrize("kept", ["file", "ledger", "both"])
async def test_day_goes_on_after_a_restart(clock: FakeClock, tmp_path: Path, kept: str) -> None:
    """From the file that the process before has left, or from the ledger where that is lost; not from both."""
    who = principal(Limits(requests_per_day=5, tokens_per_month=1_000_000))
    async with LocalGrants(LeaseFile(tmp_path / "leases"), clock, offset_ms=OFFSET_MS) as grants:
        store = MeteredLimits(grants, clock)
        for _ in range(3):
            (await store.reserve(who, request())).settle(Usage(1000, 0))
    if kept == "ledger":
        for left in (tmp_path / "leases").iterdir():
            left.unlink()
    ledger = SqliteLedger(tmp_path / "store.sqlite3")
    if kept != "file":
        fill(ledger, clock)
    file = LeaseFile(tmp_path / "leases")
    with closing(ledger):
        async with LocalGrants(file, clock, offset_ms=OFFSET_MS, sums=StoreSums(AskedAtOnce(ledger))) as grants:
            store = MeteredLimits(grants, clock)
            for _ in range(2):
                (await store.reserve(who, request())).settle(Usage(1000, 0))
            assert "requests a day" in (await refusal(store, who)).message("en")
            tokens = grants.meters(who)[1]
            assert tokens.spent == 5000


class AskedAtOnce:
    """The ledger's sums without a thread, which a virtual loop would not wait for."""

    def __init__(self, ledger: SqliteLedger) -> None:
        self._ledger = ledger

    async def sums(self, query: LedgerQuery, groups: Sequence[Group]) -> list[UsageSum]:
        return self._ledger.sums(query, groups)


def fill(ledger: SqliteLedger, clock: FakeClock) -> None:
    """Three calls of today, one that was refused, and one of long ago."""
    entries = [
        entry(number, started_at=at, tenant="가게", project="상담", key_id="k", replica=replica, completion_tokens=0)
        for number, (at, replica) in enumerate(
            [(clock.time(), "a")] * 3 + [(clock.time(), None), (clock.time() - 40 * 86_400, "a")]
        )
    ]
    ledger.write(rows(entries))


async def test_calls_without_limits_are_learned_from_as_those_with(clock: FakeClock, tmp_path: Path) -> None:
    habits = Habits()
    async with LocalGrants(LeaseFile(tmp_path), clock, offset_ms=OFFSET_MS) as grants:
        store = MeteredLimits(grants, clock, habits)
        for who in (Principal("k", "학교", "p"), principal(Limits(requests_per_day=99))):
            for used in (Usage(10, 30), Usage(10, 50), Usage(10, 40), None, Usage(0, 7)):
                (await store.reserve(who, request(max_tokens=8000))).settle(used)
            assert habits.of(who.tenant, "m").answer_mean(8000, 1) == 41
            assert habits.of(who.tenant, "m").prompt_mean(2 * len(request().prompt)) == 20


async def test_file_of_a_process_that_still_runs_is_left_alone(clock: FakeClock, tmp_path: Path) -> None:
    who = principal(Limits(requests_per_day=5))
    async with LocalGrants(LeaseFile(tmp_path), clock, offset_ms=OFFSET_MS) as first:
        await MeteredLimits(first, clock).reserve(who, request())
        async with LocalGrants(LeaseFile(tmp_path), clock, offset_ms=OFFSET_MS) as second:
            assert second.meters(who)[0].spent == 0
            assert {meter.spent for meter in first.meters(who)} == {1}


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 400)), max_size=40))
def test_tokens_over_many_windows_are_never_more_than_the_limits_and_what_was_owed(course: list[tuple[int, int]]) -> None:
    """Each window lets reservations through for what it has left of its limit after the debts of those before."""
    meter, limit, now = Meter(SCOPE, Kind.TOKENS_PER_MINUTE, 100, 0), 100, 0.0
    meter.open_whole(1, 60.0)
    used_in_all = overuse_in_all = 0
    for later_s, used in course:
        now += later_s
        if now >= meter.ends:
            turns = int((now - meter.ends) // 60) + 1
            meter.open_whole(meter.window + turns, meter.ends + 60 * turns)
        if not meter.lacks(10, now):
            meter.take(10)
            meter.settle(meter.window, 10, used)
            used_in_all += used
            overuse_in_all = max(overuse_in_all, used - 10)
        assert used_in_all <= limit * meter.window + max(0, overuse_in_all)


async def test_meters_that_were_dropped_are_not_counted_by_any_more(
    clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter_book, "most_meters", 0)
    who, colleague = principal(Limits(requests_per_minute=2)), principal(Limits(requests_per_minute=2), Limits())
    async with LocalGrants(LeaseFile(tmp_path), clock, offset_ms=OFFSET_MS) as grants:
        store = MeteredLimits(grants, clock)
        (await store.reserve(who, request())).settle(Usage(1))
        clock.advance(2 * 3600)
        await asyncio.sleep(60)
        assert grants.forgotten()
        (await store.reserve(who, request())).settle(Usage(1))
        (await store.reserve(colleague, request())).settle(Usage(1))
        await refusal(store, who)
