"""Places never leak, whatever happens to those who hold or await them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.asyncio_gate import AsyncioGate
from gateway.errors import CallError, QueueTimeout, ServerOverloaded
from gateway.policy.admission import Patience
from tests.fakes import LoopClock, VirtualLoop

M = "daemun-demo"


def gate(places: int, *, most_waiting: int = 10) -> AsyncioGate:
    made = AsyncioGate(Patience(most_waiting, busy_s=30, cold_s=120), LoopClock())
    made.resize(M, places)
    return made


async def stay(gate: AsyncioGate, seconds: float, log: list[str] | None = None, name: str = "") -> None:
    async with gate.place(M):
        if log is not None:
            log.append(name)
        await asyncio.sleep(seconds)


async def test_calls_start_in_the_order_in_which_they_came() -> None:
    narrow, log = gate(1), list[str]()
    await asyncio.gather(*(stay(narrow, 5, log, name) for name in "abcd"))
    assert log == ["a", "b", "c", "d"]
    assert asyncio.get_running_loop().time() == pytest.approx(20)
    assert narrow.counts(M) == (0, 0)


async def test_full_queue_rejects_at_once() -> None:
    narrow = gate(1, most_waiting=1)
    held = [asyncio.create_task(stay(narrow, 5)) for _ in range(2)]
    await asyncio.sleep(1)
    with pytest.raises(ServerOverloaded) as caught:
        await stay(narrow, 1)
    assert caught.value.retry_after_s == 30
    assert narrow.counts(M) == (1, 1)
    await asyncio.gather(*held)


async def test_waiting_ends_when_a_replica_appears() -> None:
    cold = gate(0)
    waiting = [asyncio.create_task(stay(cold, 1)) for _ in range(3)]
    await asyncio.sleep(100)
    assert cold.counts(M) == (0, 3)
    cold.resize(M, 2)
    await asyncio.sleep(0.5)
    assert cold.counts(M) == (2, 1)
    await asyncio.gather(*waiting)


@pytest.mark.parametrize(("places", "patience_s"), [(0, 120), (1, 30)])
async def test_patience_runs_out_sooner_where_we_are_busy_than_where_we_are_cold(places: int, patience_s: float) -> None:
    full = gate(places)
    held = [asyncio.create_task(stay(full, 500)) for _ in range(places)]
    await asyncio.sleep(0)
    with pytest.raises(QueueTimeout) as caught:
        await stay(full, 1)
    assert asyncio.get_running_loop().time() == pytest.approx(patience_s)
    assert caught.value.fields["waited_s"] == pytest.approx(patience_s)
    assert full.counts(M) == (places, 0)
    await asyncio.gather(*held)


async def test_patience_grows_when_the_last_replica_goes() -> None:
    busy = gate(1)
    held = asyncio.create_task(stay(busy, 500))
    waiting = asyncio.create_task(stay(busy, 1))
    await asyncio.sleep(20)
    busy.resize(M, 0)
    await asyncio.sleep(30)
    assert busy.counts(M) == (1, 1), "30 s of a cold patience of 120 s are not all of it"
    with pytest.raises(QueueTimeout):
        await waiting
    assert asyncio.get_running_loop().time() == pytest.approx(120)
    await held


async def test_models_have_queues_of_their_own() -> None:
    one = gate(1)
    one.resize("other", 1)
    async with one.place(M), one.place("other"):
        assert one.counts(M) == one.counts("other") == (1, 0)


async def test_failure_in_the_block_gives_the_place_back() -> None:
    one = gate(1)
    with pytest.raises(ZeroDivisionError):
        async with one.place(M):
            raise ZeroDivisionError
    assert one.counts(M) == (0, 0)


async def test_place_given_to_one_who_is_cancelled_in_that_moment_goes_on() -> None:
    """It was started but has not run since: its place must reach the next one."""
    one, log = gate(1), list[str]()
    first, second, third = (asyncio.create_task(stay(one, 10, log, name)) for name in "abc")
    await asyncio.sleep(10 - 1e-6)
    asyncio.get_running_loop().call_later(1e-6, second.cancel)
    await asyncio.wait([first, second, third])
    assert log in (["a", "c"], ["a", "b", "c"])
    assert one.counts(M) == (0, 0)


_times = st.integers(0, 60).map(float)
_visits = st.lists(st.tuples(_times, _times, st.none() | _times), max_size=12)
_sizes = st.lists(st.tuples(_times, st.integers(0, 3)), max_size=5)


@given(_visits, _sizes, st.integers(0, 3))
def test_no_place_leaks_under_any_schedule(
    visits: list[tuple[float, float, float | None]], sizes: list[tuple[float, int]], places: int
) -> None:
    """Calls come, stay and are cancelled at any time, while the fleet changes; in the end everybody gets in again."""

    async def schedule() -> None:
        shared = gate(places, most_waiting=3)
        loop = asyncio.get_running_loop()
        inside, most = 0, max([places, *(size for _, size in sizes)])

        async def visit(comes: float, stays: float) -> None:
            nonlocal inside
            await asyncio.sleep(comes)
            async with shared.place(M):
                inside += 1
                try:
                    assert inside <= most
                    await asyncio.sleep(stays)
                finally:
                    inside -= 1

        tasks = [asyncio.create_task(visit(comes, stays)) for comes, stays, _ in visits]
        for task, (_, _, cancelled_at) in zip(tasks, visits, strict=True):
            if cancelled_at is not None:
                loop.call_later(cancelled_at, task.cancel)
        for at, size in sizes:
            loop.call_later(at, shared.resize, M, size)
        results: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            assert result is None or isinstance(result, CallError | asyncio.CancelledError), result
        assert shared.counts(M) == (0, 0)
        assert shared._starts == {}
        await asyncio.sleep(100)
        shared.resize(M, 2)
        await asyncio.gather(stay(shared, 1), stay(shared, 1))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(schedule())
