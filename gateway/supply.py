"""How much of each model the fleet can run at once, told to the gate whenever that changes."""

from __future__ import annotations

from gateway.policy.admission import Capacity
from gateway.policy.routing import Pressure
from gateway.ports import Fleet, Gate


class Supply:
    """A replica runs `places_per_replica` calls, and as many tokens as its KV cache holds, where its engine tells. Each of
    several `workers` gives out its part of both: together they must not give out more than there is.
    """

    def __init__(self, fleet: Fleet, gate: Gate, *, places_per_replica: int, workers: int = 1) -> None:
        self._fleet = fleet
        self._gate = gate
        self._places = places_per_replica
        self._workers = workers
        self._kv_tokens: dict[str, int] = {}  # by replica
        fleet.on_change(self._changed)
        fleet.on_pressure(self._told)

    def _changed(self, model: str) -> None:
        self._gate.resize(model, self._capacity(model))

    def _told(self, replica_id: str, pressure: Pressure) -> None:
        tokens = pressure.kv_tokens or 0
        if self._kv_tokens.get(replica_id) == tokens:
            return
        self._kv_tokens[replica_id] = tokens
        for model in self._fleet.models():
            if any(replica.id == replica_id for replica in self._fleet.ready(model)):
                self._changed(model)

    def _capacity(self, model: str) -> Capacity:
        """Tokens are known where every replica's are known: half of them would be taken for all there is."""
        ready = self._fleet.ready(model)
        tokens = [self._kv_tokens.get(replica.id, 0) for replica in ready]
        return Capacity(
            places=max(len(ready) * self._places // self._workers, min(1, len(ready))),
            tokens=sum(tokens) // self._workers if all(tokens) else 0,
            starting=self._fleet.starting(model),
            replicas=len(ready),
        )
