"""What fits beside what runs, and how long the engines will be reading."""

from __future__ import annotations

from itertools import count

from gateway.policy.ask import Ask, Capacity, Rules, Ticket
from gateway.policy.fair_queue import Call, FairQueue
from gateway.policy.holding import Holding
from gateway.policy.limits import Tier

PAID = 1
numbers = count(1)


def call(queue: FairQueue, tenant: str, prompt_tokens: int = 100) -> Call:
    ask = Ask(tenant, Tier.PAID, prompt_tokens, 100)
    return Call(Ticket(next(numbers)), ask, PAID, queue.enter(ask, 0.0), 0.0)


def reading(tokens_per_s: int) -> tuple[Holding, FairQueue]:
    """Engines that read so many tokens a second, and have as many before them as may be sent."""
    holding, queue = Holding(Rules(target_first_token_s=0.2)), FairQueue()
    holding.resize(Capacity(1000))
    for _ in range(tokens_per_s // 100):
        read = call(queue, "z")
        holding.begin(read, 0.0)
        holding.window.answered(read, 0.05, 0.05)
    while holding.has_any_room:
        holding.begin(call(queue, "z"), 0.06)
    return holding, queue


def test_call_behind_many_of_the_tier_is_slow_to_answer() -> None:
    holding, queue = reading(10_000)
    assert not holding.is_slow_to_answer(call(queue, "a"), queue, 0.4, 0.1)
    for _ in range(20):
        queue.add(call(queue, "b"), returned=False)
    assert holding.is_slow_to_answer(call(queue, "a"), queue, 0.4, 0.1)


def test_call_behind_its_own_tenants_is_slow_to_answer_where_others_come_between() -> None:
    holding, queue = reading(10_000)
    for tenant in "bcdefgh":
        queue.add(call(queue, tenant), returned=False)
    assert not holding.is_slow_to_answer(call(queue, "a"), queue, 0.4, 0.1)
    queue.add(call(queue, "b"), returned=False)
    queue.add(call(queue, "b"), returned=False)
    assert holding.is_slow_to_answer(call(queue, "b"), queue, 0.4, 0.1)
    assert not holding.is_slow_to_answer(call(queue, "a"), queue, 0.4, 0.1)


def test_room_for_one_call_is_none_for_those_who_wait_before_it() -> None:
    holding, queue = reading(1000)
    waits = call(queue, "b", 5000)
    queue.add(waits, returned=False)
    for running in list(holding.window._unanswered.values())[:3]:  # what the engines answer first
        holding.window.gone(running)
    small = call(queue, "a", 10)
    assert holding.window.would_hold(10)
    assert holding.is_slow_to_answer(small, queue, 0.4, 0.1)


def test_nothing_fits_without_any_room() -> None:
    holding, queue = reading(1000)
    assert not holding.fits(call(queue, "a", 1), queue, 0.1)
    holding.resize(Capacity(1000, replicas=2000))
    assert holding.has_any_room
    assert holding.fits(call(queue, "a", 1), queue, 0.1)
    holding.resize(Capacity(0))
    assert not holding.has_any_room
