"""What several workers are asked, together."""

from __future__ import annotations

from dataclasses import replace

from gateway.policy.ask import TIERS, Capacity
from gateway.policy.demand import Demand, Step, TierDemand, total
from gateway.policy.limits import Tier

NOTHING = dict.fromkeys(TIERS, TierDemand())
ONE = Demand(NOTHING, 1.5, 100.0, 1.0, 90.0, 4.0, 7, 0.5, 3, Step.BATCH_WAITS, Capacity(64, 1000, 1, 2))


def test_one_is_its_own_total() -> None:
    assert total([ONE]) == ONE


def test_what_is_asked_adds_up_and_of_what_all_see_the_most_counts() -> None:
    tiers = {**NOTHING, Tier.FREE: TierDemand(1, 200, 3, 400)}
    first = replace(ONE, tiers=tiers)
    second = replace(ONE, tiers=tiers, expected_wait_s=9.0, step=Step.OUTPUT_CAPPED, capacity=Capacity(32))
    both = total([first, second])
    assert both.tiers == {**NOTHING, Tier.FREE: TierDemand(2, 400, 6, 800)}
    assert (both.arrivals_per_s, both.arrival_tokens_per_s, both.drain_per_s, both.drain_tokens_per_s) == (3.0, 200.0, 2.0, 180.0)
    assert (both.rejected, both.rejections_per_s, both.promised) == (14, 1.0, 6)
    assert (both.expected_wait_s, both.step, both.capacity) == (9.0, Step.OUTPUT_CAPPED, Capacity(64, 1000, 1, 2))
