"""A call of a model whose candidate is on trial: to the one or the other by its caller's turn, and in the model's name.

Whatever a candidate does wrong before its answer has begun, its client does not hear of: the call goes on to the model that was
asked for, and the ledger keeps what the candidate made of it as an entry of its own. A call is charged once, at the price of the
model that was asked for.
"""

from __future__ import annotations

from gateway.call import Call
from gateway.call_error import CallError
from gateway.dispatch import Dispatch
from gateway.entry import NOBODY, RETURNED
from gateway.errors import Busy
from gateway.lease import Lease
from gateway.policy.rollout import Rollout, Version
from gateway.policy.routing import Router
from gateway.ports import Ports, Principal, Replica, Reservation
from gateway.protocol import conversation
from gateway.protocol.openai import Request
from gateway.receipt import Receipt
from gateway.reply import Reply, opened
from gateway.shadow import Shadows
from gateway.terms import MODEL_USED, Terms, candidates_terms, terms


class Trial:
    """Of one model. Its calls run like all others otherwise: see `gateway.pipeline`."""

    def __init__(self, rollout: Rollout, ports: Ports, router: Router[Replica], shadows: Shadows) -> None:
        self._rollout = rollout
        self._ports = ports
        self._router = router
        self._shadows = shadows
        self._tally = ports.gate.tally(rollout.model)

    async def run(self, call: Call, receipt: Receipt, lease: Lease, deadline: float) -> Reply:
        """Take what the call needs and open its answer, up to the first piece. Raises a CallError."""
        rollout, headers, version = self._rollout, call.headers, self._version(call)
        if version is not Version.CANARY:
            return await self._at_model(call, receipt, lease, deadline, has_shadow=version is Version.SHADOW)
        mark = len(headers)
        agreed = candidates_terms(call.request, rollout.candidate, call.principal, self._ports, headers=headers)
        if agreed is None:
            return await self._at_model(call, receipt, lease, deadline)
        receipt.taken_as(rollout.candidate, agreed.tier, rollout.model)
        reservation = await self._reserve(call.principal, call.request, receipt, lease)
        reply = await self._at_candidate(call, agreed, receipt, lease, deadline, reservation)
        if reply is not None:
            return reply
        del headers[mark:]
        return await self._at_model(call, receipt, lease, deadline, reservation)

    async def _at_model(
        self,
        call: Call,
        receipt: Receipt,
        lease: Lease,
        deadline: float,
        reservation: Reservation | None = None,
        *,
        has_shadow: bool = False,
    ) -> Reply:
        """As if there were no rollout. With a reservation: after the candidate."""
        ports, model = self._ports, self._rollout.model
        agreed = terms(call.request, call.principal, ports, patience_s=call.patience_s, headers=call.headers)
        is_its_own = agreed.request.model == model
        if is_its_own:
            call.headers.append((MODEL_USED, model.encode()))
        receipt.taken_as(agreed.request.model, agreed.tier, model if is_its_own or reservation is not None else "")
        if reservation is None:
            reservation = await self._reserve(call.principal, agreed.request, receipt, lease)
        dispatch = Dispatch(ports, self._router, agreed, receipt, call_id=call.id, deadline=deadline, tell=call.tell)
        lease.hold(dispatch.end)
        begin = await dispatch.begin()
        if has_shadow and is_its_own and _may_be_copied(agreed.request):
            self._shadows.send(call.id, agreed, self._rollout)
        return opened(agreed, begin, dispatch, receipt, lease, reservation.headers())

    async def _at_candidate(
        self, call: Call, agreed: Terms, receipt: Receipt, lease: Lease, deadline: float, reservation: Reservation
    ) -> Reply | None:
        """None where the candidate gives no answer and another may. There is one attempt, and no waiting."""
        ports = self._ports
        what_came = self._receipt_of_its_own(call, agreed)
        dispatch = Dispatch(ports, self._router, agreed, receipt, call_id=call.id, deadline=deadline, most_attempts=1)
        lease.hold(dispatch.end)
        self._tally.canary += 1
        try:
            begin = await dispatch.begin()
        except CallError as problem:
            if ports.clock.monotonic() >= deadline or not _may_be_sent_again(agreed.request, problem):
                raise
            dispatch.end(problem)
            self._tally.returned += 1
            what_came.close(problem)
            return None
        return opened(agreed, begin, dispatch, receipt, lease, reservation.headers())

    def _version(self, call: Call) -> Version:
        """What costs no tokens is about the model's own."""
        if not call.request.endpoint.counted:
            return Version.MODEL
        key_id = call.principal.key_id
        caller = key_id.encode() if self._rollout.by_key else conversation.caller(key_id, call.request)
        return self._rollout.version(caller)

    async def _reserve(self, principal: Principal, request: Request, receipt: Receipt, lease: Lease) -> Reservation:
        reservation = await self._ports.limits.reserve(principal, request)
        lease.hold(lambda error: reservation.settle(receipt.worked(error)))
        return reservation

    def _receipt_of_its_own(self, call: Call, agreed: Terms) -> Receipt:
        ports, request = self._ports, agreed.request
        nobody = Principal(key_id="", tenant=NOBODY, project=RETURNED, tier=agreed.tier)
        receipt = Receipt(
            f"{call.id}-{RETURNED}", request.endpoint.path, nobody, ports.clock, ports.ledger, stream=request.stream
        )
        receipt.taken_as(request.model, agreed.tier, self._rollout.model)
        return receipt


def _may_be_sent_again(request: Request, problem: CallError) -> bool:
    """Whether nothing can have come of it that should not come twice. What one refuses, the other may take."""
    was_refused = problem.status < 500 or isinstance(problem, Busy)
    return request.repeatable or was_refused or not problem.fields.get("reached", True)


def _may_be_copied(request: Request) -> bool:
    return request.repeatable and not conversation.keeps_its_answer(request)
