"""A gateway over fakes: one key, one model on two replicas, as many places as asked for."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.adapters.asyncio_gate import AsyncioGate
from gateway.app import assemble
from gateway.entry import Entry
from gateway.ledger_query import Group, LedgerQuery, UsageStore, UsageSum
from gateway.policy.admission import Ask, Capacity, Rules
from gateway.policy.estimate import Habits
from gateway.policy.limits import Tier
from gateway.ports import Ports, Principal, Replica
from gateway.settings import GatewaySettings
from tests.fakes import FakeClient, FakeFleet, FakeLedger, FakeLimits, FakeTenants, FakeUpstream, LoopClock, Script

MODEL = "daemun-demo"
A, B, C, D = (Replica(name, MODEL, f"http://{name}") for name in "abcd")
OTHER = Replica("other", "other-model", "http://other")
ANNA = Principal("key_anna", "anna", "chatbot")
BORA = Principal("key_bora", "bora", "search", models=frozenset({"other-model"}))
CHAN = Principal("key_chan", "chan", "play", tier=Tier.FREE)


class PressedGate:
    """A gate that is on a step of the overload ladder for as long as the test wants."""

    def __init__(self, gate: AsyncioGate) -> None:
        self.cap: int | None = None
        self.full: tuple[str, ...] = ()
        self.place, self.resize, self.has_room = gate.place, gate.resize, gate.has_room
        self.demand, self.counts, self.tally = gate.demand, gate.counts, gate.tally

    def output_cap(self, model: str, ask: Ask) -> int | None:
        return self.cap if ask.tier is Tier.FREE else None

    def prefers_fall_back(self, model: str, ask: Ask) -> bool:
        return model in self.full


SETTINGS = GatewaySettings(max_body_bytes=4096, max_media_body_bytes=8192)


class NoUsage:
    """A ledger without entries."""

    async def sums(self, query: LedgerQuery, groups: Sequence[Group]) -> list[UsageSum]:
        return []


class House:
    """The assembled app, its fakes within reach. The fleet's size does not change the places; tests do."""

    def __init__(
        self,
        *scripts: Script,
        replicas: tuple[Replica, ...] = (A, B),
        places: int = 4,
        most_waiting: int = 2,
        limits: FakeLimits | None = None,
        usage: UsageStore | None = None,
        settings: GatewaySettings = SETTINGS,
    ) -> None:
        self.usage = usage
        self.settings = settings
        self.tenants = FakeTenants({"dm-anna": ANNA, "dm-bora": BORA, "dm-chan": CHAN})
        self.limits = limits or FakeLimits()
        self.habits = Habits()
        self.clock = LoopClock()
        rules = Rules(most_waiting, busy_s=30, cold_s=120, prompt_s=30)
        self.gate = PressedGate(AsyncioGate(rules, self.clock, spread=lambda: 0.0))
        self.gate.resize(MODEL, Capacity(places))
        self.fleet = FakeFleet({MODEL: replicas, "other-model": ()})
        self.upstream = FakeUpstream(*scripts)
        self.ledger = FakeLedger()
        self.use(self.upstream)

    def use(self, upstream: FakeUpstream) -> None:
        """Put these engines behind the gateway."""
        self.upstream = upstream
        ports = Ports(self.clock, self.tenants, self.limits, self.gate, self.fleet, upstream, self.ledger, self.habits)
        self.app = assemble(ports, self.settings, usage_store=self.usage or NoUsage())
        self.client = FakeClient(self.app, authorization="Bearer dm-anna")
        self.stranger = FakeClient(self.app)

    def open_other_model(self) -> None:
        """A replica of it is there, with one place."""
        self.fleet.set_ready("other-model", [OTHER])
        self.gate.resize("other-model", Capacity(1))

    @property
    def entry(self) -> Entry:
        """The only one."""
        (entry,) = self.ledger.entries
        return entry

    def has_given_everything_back(self) -> bool:
        """No place, no open answer, nothing in flight, and every reservation settled once."""
        settled = all(len(reservation.settled) == 1 for reservation in self.limits.reservations)
        return settled and self.gate.counts(MODEL) == (0, 0) and self.upstream.open_now == 0
