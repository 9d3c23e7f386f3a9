"""How long what a store said of a key is believed: a second while it answers, `believe_s` while it does not."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gateway.adapters.fresh_tenants import FreshTenants
from gateway.errors import StoreUnavailable
from gateway.ports import Principal
from tests.fakes import LoopClock

ANNA = Principal("key_anna", "anna", "chatbot")


class FakeStore:
    """Answers, fails or hangs as it is told."""

    def __init__(self) -> None:
        self.keys = {"dm-anna": ANNA, "dm-bora": Principal("key_bora", "bora", "search")}
        self.asked = 0
        self.does = "answers"
        self.takes_s = 0.0

    async def principal(self, secret: str) -> Principal | None:
        self.asked += 1
        await asyncio.sleep(1e9 if self.does == "hangs" else self.takes_s)
        if self.does == "fails":
            raise StoreUnavailable from ConnectionRefusedError("nobody listens there")
        return self.keys.get(secret)


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def tenants(store: FakeStore) -> FreshTenants:
    return FreshTenants(store, LoopClock(), believe_s=60)


async def test_store_is_asked_once_a_second_and_once_for_all_who_wait(store: FakeStore, tenants: FreshTenants) -> None:
    store.takes_s = 0.1
    assert await asyncio.gather(*(tenants.principal("dm-anna") for _ in range(100))) == [ANNA] * 100
    assert store.asked == 1
    await asyncio.sleep(1.0)
    await asyncio.gather(*(tenants.principal("dm-anna") for _ in range(100)))
    assert store.asked == 2


async def test_who_leaves_while_the_store_is_asked_disturbs_nobody_else(store: FakeStore, tenants: FreshTenants) -> None:
    store.takes_s = 0.1
    first = asyncio.create_task(tenants.principal("dm-anna"))
    second = asyncio.create_task(tenants.principal("dm-anna"))
    await asyncio.sleep(0.05)
    first.cancel()
    assert await second == ANNA
    assert store.asked == 1


@pytest.mark.parametrize("does", ["fails", "hangs"])
async def test_known_key_is_believed_for_a_while_and_then_nobody_is(store: FakeStore, tenants: FreshTenants, does: str) -> None:
    loop = asyncio.get_running_loop()
    await tenants.principal("dm-anna")
    since = loop.time()
    store.does = does
    longest_s = 0.0
    while loop.time() < since + 59.0:
        begun = loop.time()
        assert await tenants.principal("dm-anna") == ANNA
        longest_s = max(longest_s, loop.time() - begun)
        await asyncio.sleep(0.01)
    assert longest_s <= 1.0, "a call waits for a store that does not answer for no longer than this"
    assert store.asked < 59 * 5, "and it is not asked more often for every call"
    await asyncio.sleep(1.0)
    with pytest.raises(StoreUnavailable, match="Try again in 1 s"):
        await tenants.principal("dm-anna")


@pytest.mark.parametrize("does", ["fails", "hangs"])
async def test_unknown_key_gets_no_guess_while_the_store_is_gone(store: FakeStore, tenants: FreshTenants, does: str) -> None:
    store.does = does
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await tenants.principal("dm-anna")
    store.does = "answers"
    await asyncio.sleep(0.3)
    assert await tenants.principal("dm-anna") == ANNA


@pytest.mark.parametrize("does", ["fails", "hangs"])
@pytest.mark.parametrize("every_s", [0.01, 0.4, 1.5])
async def test_key_revoked_behind_an_outage_is_refused_within_two_seconds(
    store: FakeStore, tenants: FreshTenants, does: str, every_s: float
) -> None:
    loop = asyncio.get_running_loop()
    await asyncio.gather(*map(tenants.principal, store.keys))
    store.does = does
    for _ in range(int(10 / every_s)):
        assert None not in await asyncio.gather(*map(tenants.principal, store.keys))
        await asyncio.sleep(every_s)
    store.does = "answers"
    store.keys.pop("dm-anna")
    since = loop.time()
    answers = []
    while loop.time() < since + 5:
        answers.append((loop.time() - since, await tenants.principal("dm-anna")))
        await asyncio.sleep(every_s)
    assert [at for at, said in answers if said is not None and at >= 2.0] == []


async def test_trouble_is_said_once_and_its_end(
    store: FakeStore, tenants: FreshTenants, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await tenants.principal("dm-anna")
    store.does = "fails"
    for _ in range(50):
        await asyncio.sleep(0.1)
        await tenants.principal("dm-anna")
    store.does = "answers"
    for _ in range(5):
        await asyncio.sleep(0.5)
        await tenants.principal("dm-anna")
    assert [record.getMessage() for record in caplog.records] == [
        "The store of keys does not answer (nobody listens there); known keys work for 60 s more.",
        "The store of keys answers again.",
    ]


async def test_keys_that_nobody_uses_are_forgotten(store: FakeStore, tenants: FreshTenants) -> None:
    for number in range(100):
        store.keys[f"dm-{number}"] = ANNA
        await tenants.principal(f"dm-{number}")
    await asyncio.sleep(61)
    await tenants.principal("dm-anna")
    assert len(tenants._known) == 1
