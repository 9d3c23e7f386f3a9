"""A call's whole life on one screen: identify, terms, reserve, dispatch (gate, pick, open); then the reply, whose end gives back.

Whatever a call takes is held by one lease, in the order of taking. If a stage fails, the lease ends at once; if all succeed, it
is handed on to the Reply, and whoever sends the reply ends it, however that goes.
"""

from __future__ import annotations

from gateway.call_error import CallError
from gateway.dispatch import Dispatch
from gateway.errors import InvalidApiKey, LedgerStuck, ModelNotAllowed, ModelNotFound
from gateway.lease import Lease
from gateway.policy.cost import NO_RATES, Rates
from gateway.policy.routing import Router
from gateway.ports import Ports, Principal, Replica, Tell
from gateway.protocol.openai import Request
from gateway.receipt import Receipt
from gateway.reply import Reply, StreamReply
from gateway.terms import Header, terms


class Call:
    """One request as it came in, and whose it is.

    `patience_s` is its own longest wait, `tell` for who wants to hear where it stands. Every stage may add to `headers`: they are
    in the head of the answer, whatever answer it becomes.
    """

    __slots__ = ("headers", "id", "patience_s", "principal", "request", "tell")

    def __init__(
        self,
        id: str,
        principal: Principal,
        request: Request,
        *,
        headers: list[Header],
        patience_s: float | None = None,
        tell: Tell | None = None,
    ) -> None:
        self.id = id
        self.principal = principal
        self.request = request
        self.headers = headers
        self.patience_s = patience_s
        self.tell = tell


class Pipeline:
    """`call_s` is how long a call may take before it is no longer tried or continued elsewhere."""

    def __init__(self, ports: Ports, *, call_s: float, rates: Rates = NO_RATES) -> None:
        self._ports = ports
        self._rates = rates
        self._call_s = call_s
        self._router: Router[Replica] = Router()
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
            agreed = terms(request, principal, ports, patience_s=call.patience_s, headers=call.headers)
            request = agreed.request
            receipt.taken_as(request.model, agreed.tier)
            reservation = await ports.limits.reserve(principal, request)
            lease.hold(lambda error: reservation.settle(receipt.worked(error)))
            deadline = ports.clock.monotonic() + self._call_s
            dispatch = Dispatch(ports, self._router, agreed, receipt, call_id=call.id, deadline=deadline, tell=call.tell)
            lease.hold(dispatch.end)
            begin = await dispatch.begin()
            headers = reservation.headers()
            if request.stream:
                return StreamReply(dispatch.content_type, begin, request, dispatch, receipt, lease.hand_on(), headers)
            return Reply(dispatch.content_type, agreed.echoed(begin), request.endpoint, receipt, lease.hand_on(), headers)

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
