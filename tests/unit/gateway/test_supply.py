"""The gate hears how much the fleet can run, whenever that changes."""

from __future__ import annotations

from gateway.adapters.asyncio_gate import AsyncioGate
from gateway.policy.admission import Capacity, Rules
from gateway.policy.routing import Pressure
from gateway.supply import Supply
from tests.fakes import FakeClock, FakeFleet
from tests.unit.gateway.house import MODEL, OTHER, A, B


def supplied(workers: int = 1) -> tuple[FakeFleet, AsyncioGate]:
    fleet, gate = FakeFleet({MODEL: (), "other-model": (OTHER,)}), AsyncioGate(Rules(), FakeClock())
    Supply(fleet, gate, places_per_replica=8, workers=workers)
    return fleet, gate


def test_every_ready_replica_adds_its_places() -> None:
    fleet, gate = supplied()
    fleet.now_starting[MODEL] = 2
    fleet.set_ready(MODEL, [A])
    assert gate.demand(MODEL).capacity == Capacity(places=8, starting=2, replicas=1)
    fleet.set_ready(MODEL, [A, B])
    assert gate.demand(MODEL).capacity.places == 16
    fleet.set_ready(MODEL, [])
    assert gate.demand(MODEL).capacity == Capacity(places=0, starting=2, replicas=0)


def test_each_of_several_workers_gives_out_its_part() -> None:
    fleet, gate = supplied(workers=3)
    fleet.set_ready(MODEL, [A, B])
    for replica in "ab":
        fleet.tell_pressure(replica, Pressure(0.5, kv_tokens=1000))
    assert gate.demand(MODEL).capacity == Capacity(places=5, tokens=666, replicas=2)
    fleet, gate = supplied(workers=20)
    fleet.set_ready(MODEL, [A])
    assert gate.demand(MODEL).capacity.places == 1
    fleet.set_ready(MODEL, [])
    assert gate.demand(MODEL).capacity.places == 0


def test_tokens_are_known_once_every_replica_has_told_them() -> None:
    fleet, gate = supplied()
    fleet.set_ready(MODEL, [A, B])
    fleet.tell_pressure("a", Pressure(0.5, kv_tokens=1000))
    assert gate.demand(MODEL).capacity.tokens == 0
    fleet.tell_pressure("b", Pressure(0.5, kv_tokens=500))
    assert gate.demand(MODEL).capacity.tokens == 1500
    fleet.tell_pressure("b", Pressure(0.5))
    assert gate.demand(MODEL).capacity.tokens == 0
    assert gate.demand("other-model").capacity == Capacity(0)
