"""Copies of clients' calls that go to a candidate on trial, whose answers are read and thrown away.

A shadow begins once its client's own answer has begun, in a task of its own, and only while the candidate has time for it: it
never waits, is of the lowest tier, is tried once, and is dropped otherwise. It is nobody's: no limit counts it, nobody pays for
it, and its entry in the ledger has no tenant.
"""

from __future__ import annotations

import asyncio
import logging

from gateway.call_error import CallError
from gateway.dispatch import Dispatch
from gateway.entry import NOBODY, SHADOW
from gateway.lease import Lease
from gateway.policy.cost import Rates
from gateway.policy.limits import Tier
from gateway.policy.rollout import Rollout, is_idle
from gateway.policy.routing import Router
from gateway.ports import Ports, Principal, Replica
from gateway.receipt import Receipt
from gateway.reply import Reply, opened
from gateway.terms import Terms, shadows_terms

log = logging.getLogger(__name__)

_OWNER = Principal(key_id="", tenant=NOBODY, project=SHADOW, tier=Tier.BATCH)


class Shadows:
    """Those that this process has under way."""

    def __init__(self, ports: Ports, router: Router[Replica], rates: Rates, *, call_s: float) -> None:
        self._ports = ports
        self._router = router
        self._rates = rates
        self._call_s = call_s
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, call_id: str, agreed: Terms, rollout: Rollout) -> None:
        """A copy of the call that was taken on these terms. Neither waits nor raises."""
        task = asyncio.create_task(self._run(f"{call_id}-{SHADOW}", agreed, rollout))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _run(self, shadow_id: str, agreed: Terms, rollout: Rollout) -> None:
        ports, tally = self._ports, self._ports.gate.tally(rollout.model)
        try:
            own = shadows_terms(agreed, rollout.candidate, ports.gate) if self._has_time(rollout.candidate) else None
            if own is None or ports.ledger.is_stuck():
                tally.unshadowed += 1
                return
            tally.shadowed += 1
            async with asyncio.timeout(self._call_s):
                with await self._open(shadow_id, own, rollout) as reply:
                    await _throw_away(reply)
        except (CallError, TimeoutError):
            pass  # its entry says so
        except Exception:  # the task's outermost edge: nobody else would hear of it
            log.exception("%s failed", shadow_id)

    def _has_time(self, candidate: str) -> bool:
        demand = self._ports.gate.demand(candidate)
        tiers = demand.tiers.values()
        return is_idle(demand.capacity.places, sum(tier.running for tier in tiers), sum(tier.waiting for tier in tiers))

    async def _open(self, shadow_id: str, own: Terms, rollout: Rollout) -> Reply:
        ports, request = self._ports, own.request
        with Lease() as lease:
            receipt = Receipt(
                shadow_id, request.endpoint.path, _OWNER, ports.clock, ports.ledger, stream=request.stream, rates=self._rates
            )
            receipt.taken_as(request.model, own.tier, rollout.model)
            lease.hold(receipt.close)
            deadline = ports.clock.monotonic() + self._call_s
            dispatch = Dispatch(ports, self._router, own, receipt, call_id=shadow_id, deadline=deadline, most_attempts=1)
            lease.hold(dispatch.end)
            return opened(own, await dispatch.begin(), dispatch, receipt, lease, ())


async def _throw_away(reply: Reply) -> None:
    reply.flow_into(lambda _: True)
    while await reply.piece():
        reply.delivered()
        if not reply.streams:
            return
