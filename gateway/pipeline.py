"""A call's whole life on one screen: identify, terms, reserve, dispatch (gate, pick, open); then the reply, whose end gives back.

Whatever a call takes is held by one lease, in the order of taking. If a stage fails, the lease ends at once; if all succeed, it
is handed on to the Reply, and whoever sends the reply ends it, however that goes.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.call import Call
from gateway.call_error import CallError
from gateway.dispatch import Dispatch
from gateway.errors import InvalidApiKey, LedgerStuck, ModelNotAllowed, ModelNotFound
from gateway.lease import Lease
from gateway.policy.cost import NO_RATES, Rates
from gateway.policy.rollout import Rollout
from gateway.policy.routing import Router
from gateway.ports import Ports, Principal, Replica
from gateway.receipt import Receipt
from gateway.reply import Reply, opened
from gateway.shadow import Shadows
from gateway.terms import terms
from gateway.trial import Trial


class Pipeline:
    """`call_s` is how long a call may take before it is no longer tried or continued elsewhere."""

    def __init__(self, ports: Ports, *, call_s: float, rates: Rates = NO_RATES, rollouts: Iterable[Rollout] = ()) -> None:
        self._ports = ports
        self._rates = rates
        self._call_s = call_s
        self._router: Router[Replica] = Router()
        self._shadows = Shadows(ports, self._router, rates.without_prices(), call_s=call_s)
        self._trials = {rollout.model: Trial(rollout, ports, self._router, self._shadows) for rollout in rollouts}
        ports.fleet.on_change(lambda _: self._router.forget({replica.id for replica in self._ready()}))
        ports.fleet.on_pressure(lambda replica_id, told: self._router.told(replica_id, told, ports.clock.monotonic()))

    async def run(self, call: Call) -> Reply:
        """Take all that the call needs and open the engine's answer, up to its first piece.

        Raises a CallError. Whatever happens, the call leaves a ledger entry; where none can be kept, no call is begun.
        """
        ports, request, principal = self._ports, call.request, call.principal
        if ports.ledger.is_stuck():
            raise LedgerStuck
        with Lease() as lease:
            path, model = request.endpoint.path, request.model
            receipt = Receipt(
                call.id, path, principal, ports.clock, ports.ledger, model=model, stream=request.stream, rates=self._rates
            )
            lease.hold(receipt.close)
            self._check_model(model, principal)
            deadline = ports.clock.monotonic() + self._call_s
            trial = self._trials.get(model)
            if trial is not None:
                return await trial.run(call, receipt, lease, deadline)
            agreed = terms(request, principal, ports, patience_s=call.patience_s, headers=call.headers)
            receipt.taken_as(agreed.request.model, agreed.tier)
            reservation = await ports.limits.reserve(principal, agreed.request)
            lease.hold(lambda error: reservation.settle(receipt.worked(error)))
            dispatch = Dispatch(ports, self._router, agreed, receipt, call_id=call.id, deadline=deadline, tell=call.tell)
            lease.hold(dispatch.end)
            begin = await dispatch.begin()
            return opened(agreed, begin, dispatch, receipt, lease, reservation.headers())

    def record_refusal(self, call_id: str, endpoint: str, principal: Principal, error: CallError) -> None:
        """A request of a known key that cannot be read is a call too: it leaves an entry, of no model, if one can be kept."""
        if not self._ports.ledger.is_stuck():
            Receipt(call_id, endpoint, principal, self._ports.clock, self._ports.ledger).close(error)

    async def identify(self, secret: str) -> Principal:
        """Whose key this is. Raises InvalidApiKey."""
        principal = await self._ports.tenants.principal(secret) if secret else None
        if principal is None:
            raise InvalidApiKey
        return principal

    def stop(self) -> None:
        """The process stops: what runs here for no client ends now."""
        self._shadows.stop()

    def models_for(self, principal: Principal) -> list[str]:
        return [model for model in self._ports.fleet.models() if principal.may_use(model)]

    def _ready(self) -> list[Replica]:
        fleet = self._ports.fleet
        return [replica for model in fleet.models() for replica in fleet.ready(model)]

    def _check_model(self, model: str, principal: Principal) -> None:
        known = model in self._ports.fleet.models()
        if known and principal.may_use(model):
            return
        usable = ", ".join(self.models_for(principal)) or "-"
        raise (ModelNotAllowed if known else ModelNotFound)(param="model", model=model, models=usable)
