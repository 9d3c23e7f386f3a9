"""Places never leak, whatever happens to those who hold or await them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.asyncio_gate import AsyncioGate
from gateway.call_error import CallError
from gateway.errors import QueueTimeout, ServerOverloaded
from gateway.policy.admission import Ask, Capacity, Rules
from gateway.policy.limits import Tier
from gateway.protocol.usage import Usage
from tests.fakes import LoopClock, VirtualLoop

M = "daemun-demo"
ASK = Ask("anna", Tier.PAID, prompt_tokens=10, output_tokens=20)


def gate(places: int, *, most_waiting: int = 10) -> AsyncioGate:
    made = AsyncioGate(Rules(most_waiting, busy_s=30, cold_s=120, prompt_s=30), LoopClock(), spread=lambda: 0.5)
    made.resize(M, Capacity(places))
    return made


async def stay(gate: AsyncioGate, seconds: float, log: list[str] | None = None, name: str = "") -> None:
    async with gate.place(M, ASK):
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
    assert caught.value.whole_retry_after_s
    assert narrow.counts(M) == (1, 1)
    await asyncio.gather(*held)


async def test_those_who_are_turned_away_are_told_different_times() -> None:
    told = []
    for random in (0.0, 1.0):
        full = AsyncioGate(Rules(0, cold_s=120), LoopClock(), spread=lambda random=random: random)  # type: ignore[misc]
        with pytest.raises(ServerOverloaded) as caught:
            await full.place(M, ASK).take()
        told.append(caught.value.whole_retry_after_s or 0)
    assert told[0] < told[1]


async def test_first_streams_tell_the_others_their_time_before_any_has_ended() -> None:
    """Two streams make 2 of 20 tokens a second, so one of them ends every 5 s."""
    loop, full = asyncio.get_running_loop(), gate(2, most_waiting=0)

    def used() -> Usage:
        return Usage(prompt_tokens=10, completion_tokens=int(2 * loop.time()))

    for like in (used, used):
        streams = full.place(M, ASK, None, like)
        await streams.take()
        streams.first_token(0.1)
    await asyncio.sleep(4)
    told = []
    for _ in range(3):
        with pytest.raises(ServerOverloaded) as caught:
            await stay(full, 1)
        told.append(caught.value.whole_retry_after_s)
    assert told == [5, 10, 15]


async def test_waiting_ends_when_a_replica_appears() -> None:
    cold = gate(0)
    waiting = [asyncio.create_task(stay(cold, 1)) for _ in range(3)]
    await asyncio.sleep(100)
    assert cold.counts(M) == (0, 3)
    cold.resize(M, Capacity(2))
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
    busy.resize(M, Capacity(0))
    await asyncio.sleep(30)
    assert busy.counts(M) == (1, 1), "30 s of a cold patience of 120 s are not all of it"
    with pytest.raises(QueueTimeout):
        await waiting
    assert asyncio.get_running_loop().time() == pytest.approx(120)
    await held


async def test_what_became_of_calls_is_counted() -> None:
    one = gate(1, most_waiting=1)
    held = asyncio.create_task(stay(one, 500))
    await asyncio.sleep(0)
    leaving = asyncio.create_task(stay(one, 1))
    await asyncio.sleep(1)
    with pytest.raises(ServerOverloaded):
        await stay(one, 1)
    leaving.cancel()
    await asyncio.wait([leaving])
    with pytest.raises(QueueTimeout):
        await stay(one, 1)
    tally = one.tally(M)
    assert (tally.at_once, tally.waited, tally.rejected, tally.evicted, tally.left) == (1, 2, 1, 1, 1)
    held.cancel()


async def test_models_have_queues_of_their_own() -> None:
    one = gate(1)
    one.resize("other", Capacity(1))
    async with one.place(M, ASK), one.place("other", ASK):
        assert one.counts(M) == one.counts("other") == (1, 0)


async def test_failure_in_the_block_gives_the_place_back() -> None:
    one = gate(1)
    with pytest.raises(ZeroDivisionError):
        async with one.place(M, ASK):
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


class Told:
    """What somebody who waits is told, and when. `blocks_s`: for how long its client then reads nothing."""

    def __init__(self, *, blocks_s: float = 0.0) -> None:
        self.words: list[tuple[float, int, float | None]] = []
        self._blocks_s = blocks_s

    async def tell(self, position: int, expected_s: float | None) -> None:
        self.words.append((round(asyncio.get_running_loop().time(), 3), position, expected_s))
        await asyncio.sleep(self._blocks_s)


async def take(gate: AsyncioGate, stays_s: float, told: Told) -> None:
    place = gate.place(M, ASK)
    await place.take(told.tell)
    await asyncio.sleep(stays_s)
    place.give_back()


async def test_who_waits_is_told_so_every_two_seconds_and_who_does_not_never() -> None:
    one, told = gate(1), [Told() for _ in range(3)]
    await asyncio.gather(*(take(one, 5, each) for each in told))
    assert told[0].words == []
    assert [word[:2] for word in told[1].words] == [(2, 1), (4, 1)]
    assert [word[:2] for word in told[2].words] == [(2, 2), (4, 2), (6, 1), (8, 1)]
    assert all(expected_s is not None and expected_s > 0 for *_, expected_s in told[2].words)


async def test_place_says_where_its_call_began_to_wait() -> None:
    one = gate(1)
    places = [one.place(M, ASK) for _ in range(3)]
    waiting = [asyncio.create_task(place.take()) for place in places]
    await asyncio.sleep(1)
    assert [place.position for place in places] == [0, 1, 2]
    for place, task in zip(places, waiting, strict=True):
        await task
        place.give_back()


async def test_client_that_does_not_read_waits_no_longer_than_the_others() -> None:
    one, told = gate(1), Told(blocks_s=1000)
    held = asyncio.create_task(stay(one, 500))
    await asyncio.sleep(0)
    with pytest.raises(QueueTimeout) as caught:
        await take(one, 1, told)
    assert asyncio.get_running_loop().time() == pytest.approx(30)
    assert (caught.value.position, len(told.words)) == (1, 1)
    assert one.counts(M) == (1, 0)
    await held


async def test_leaving_while_being_told_gives_the_place_back() -> None:
    one, told = gate(1), Told(blocks_s=10)
    held = asyncio.create_task(stay(one, 5))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(take(one, 1, told))
    await asyncio.sleep(2.5)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert one.counts(M) == (1, 0)
    waiting = asyncio.create_task(take(one, 1, told))
    await asyncio.sleep(3)
    assert one.counts(M) == (1, 0), "started while its client did not read"
    waiting.cancel()
    await asyncio.wait([waiting, held])
    assert one.counts(M) == (0, 0)


async def test_own_patience_shortens_the_wait_and_cannot_lengthen_it() -> None:
    for patience_s, waits_s in ((5, 5), (1000, 30)):
        one = gate(1)
        held = asyncio.create_task(stay(one, 500))
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(0)
        with pytest.raises(QueueTimeout):
            await one.place(M, replace(ASK, patience_s=patience_s)).take()
        assert asyncio.get_running_loop().time() - began == pytest.approx(waits_s)
        held.cancel()


async def test_who_begins_again_does_not_queue_behind_those_who_wait() -> None:
    one, log = gate(2), list[str]()
    broken, healthy = one.place(M, ASK), one.place(M, ASK)
    await broken.take()
    await healthy.take()
    waiting = [asyncio.create_task(stay(one, 1, log, name)) for name in "ab"]
    await asyncio.sleep(0)
    one.resize(M, Capacity(1))
    resuming = asyncio.create_task(broken.resume())
    await asyncio.sleep(3)
    assert not resuming.done(), "the only place that is left is another's"
    healthy.give_back()
    await resuming
    await asyncio.sleep(3)
    assert (one.counts(M), log) == ((1, 2), [])
    broken.give_back()
    await asyncio.gather(*waiting)
    assert log == ["a", "b"]


async def test_beginning_again_costs_no_wait_where_there_is_room() -> None:
    one = gate(1)
    async with one.place(M, ASK) as place:
        waiting = asyncio.create_task(stay(one, 1))
        await asyncio.sleep(1)
        await place.resume()
        assert asyncio.get_running_loop().time() == pytest.approx(1)
    await waiting


@pytest.mark.parametrize("places", [0, 1])
async def test_beginning_again_ends_with_the_patience_and_keeps_the_place_for_its_holder_to_give_back(places: int) -> None:
    one = gate(2)
    async with one.place(M, ASK) as place, one.place(M, ASK):
        one.resize(M, Capacity(places))
        with pytest.raises(QueueTimeout):
            await place.resume()
        assert asyncio.get_running_loop().time() == pytest.approx(30 if places else 120)
        assert one.counts(M) == (2, 0)
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
            place, told = shared.place(M, ASK), Told(blocks_s=stays % 3)
            await place.take(told.tell if stays % 2 else None)
            inside += 1
            try:
                assert inside <= most
                await asyncio.sleep(stays)
                await place.resume(told.tell)
            finally:
                inside -= 1
                place.give_back()

        tasks = [asyncio.create_task(visit(comes, stays)) for comes, stays, _ in visits]
        for task, (_, _, cancelled_at) in zip(tasks, visits, strict=True):
            if cancelled_at is not None:
                loop.call_later(cancelled_at, task.cancel)
        for at, size in sizes:
            loop.call_later(at, shared.resize, M, Capacity(size))
        results: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            assert result is None or isinstance(result, CallError | asyncio.CancelledError), result
        assert shared.counts(M) == (0, 0)
        await asyncio.sleep(100)
        shared.resize(M, Capacity(2))
        await asyncio.gather(stay(shared, 1), stay(shared, 1))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(schedule())
