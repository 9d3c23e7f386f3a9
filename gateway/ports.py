"""What the pipeline needs from the world, as Protocols. Adapters carry them out; fakes in tests do too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from gateway.entry import Entry
from gateway.policy.admission import Ask, Capacity, Demand
from gateway.policy.caller import Like
from gateway.policy.estimate import Habits
from gateway.policy.limits import Scope, Tier
from gateway.policy.routing import Pressure
from gateway.protocol.openai import Request
from gateway.protocol.plain import Engine
from gateway.protocol.usage import NO_USAGE, Usage


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds that only grow, for durations."""
        ...

    def time(self) -> float:
        """Seconds since the epoch, for people and ledgers."""
        ...


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling: a key and all that it belongs to.

    `models` None means every model. `scopes` are the levels that have limits, the tenant's first: the tightest holds. `weight`
    is the tenant's share of its tier, relative to others'. `fallbacks` are the smaller models that its calls may go to when the
    one they ask for is full.
    """

    key_id: str
    tenant: str
    project: str
    tier: Tier = Tier.PAID
    models: frozenset[str] | None = None
    scopes: tuple[Scope, ...] = ()
    weight: float = 1.0
    fallbacks: tuple[str, ...] = ()

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models


class TenantStore(Protocol):
    async def principal(self, secret: str) -> Principal | None:
        """Whose key this is; None for one that is unknown or revoked. A revocation is noticed within 2 s.

        Raises StoreUnavailable if nobody can say.
        """
        ...


Headers = tuple[tuple[bytes, bytes], ...]


class Reservation(Protocol):
    """What a call may spend, taken before it starts."""

    def settle(self, used: Usage | None) -> None:
        """The call is over and used this much, which is learned; None where no replica worked for it. Called in any case."""
        ...

    def headers(self) -> Headers:
        """How the caller's limits stand now, for the answer's head."""
        ...


class LimitStore(Protocol):
    async def reserve(self, principal: Principal, request: Request) -> Reservation:
        """Take what the call may spend. Raises a CallError if the caller may not spend it, and has taken nothing then."""
        ...


@dataclass(slots=True)
class Tally:
    """What became of the calls of one model since this process began; each only ever grows.

    at_once: started without waiting. waited: had to. rejected: turned away before the queue. evicted: out of it, when their
    patience ended. left: their clients did. resumed: began again elsewhere. capped: allowed less output. fell_back: went to
    another model, counted at the one that they asked for. So are those of a rollout. canary: the candidate's. returned: of these,
    came back from it. shadowed: had a copy sent to it. unshadowed: should have had, but it was busy.
    """

    at_once: int = 0
    waited: int = 0
    rejected: int = 0
    evicted: int = 0
    left: int = 0
    resumed: int = 0
    capped: int = 0
    fell_back: int = 0
    canary: int = 0
    returned: int = 0
    shadowed: int = 0
    unshadowed: int = 0


Tell = Callable[[int, float | None], Awaitable[None]]
"""Is told again and again while a call waits: its position, from 1, and the seconds it will probably wait, None if unknown."""


class Place(Protocol):
    """A running slot. `async with` takes it and gives it back; `take` and `give_back` are the two halves."""

    position: int
    """Where the call began to wait; 0 where it did not have to."""

    async def take(self, tell: Tell | None = None) -> None:
        """Wait for it. Raises ServerOverloaded (rejected before the queue) or QueueTimeout (evicted from it)."""
        ...

    async def resume(self, tell: Tell | None = None) -> None:
        """What was begun here has to begin again elsewhere: wait, ahead of all that wait to begin, until the fleet can take it.

        The place stays taken, also where this raises QueueTimeout.
        """
        ...

    def first_token(self, took_s: float) -> None:
        """The engine has begun to answer, so long after it was sent the call."""
        ...

    def retry_after_s(self) -> float:
        """When a call like this one that came then would probably start. A promise: ask once for each that is turned away."""
        ...

    def give_back(self, used: Usage = NO_USAGE) -> None:
        """Called exactly once, and only after `take` has returned. `used` is what the engine has counted, if it has."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...


class Gate(Protocol):
    def place(self, model: str, ask: Ask, like: Like | None = None, used: Callable[[], Usage] | None = None) -> Place:
        """A place for one call of the model, not taken yet. `like` is asked where it matters whether this caller was told to
        come again; without it the ask's own `caller` counts. `used` tells what the call has used so far; None: not known before
        its end.
        """
        ...

    def resize(self, model: str, capacity: Capacity) -> None:
        """The fleet can run this much of the model at once from now on."""
        ...

    def output_cap(self, model: str, ask: Ask) -> int | None:
        """The most tokens of output that such a call gets as things stand; None: as many as it asks for."""
        ...

    def prefers_fall_back(self, model: str, ask: Ask) -> bool:
        """Whether such a call should go to another model, if it names one."""
        ...

    def has_room(self, model: str) -> bool:
        """Whether a call of this model would start at once."""
        ...

    def tally(self, model: str) -> Tally:
        """Of the model's calls; who does something with one on the gate's word adds to it."""
        ...

    def demand(self, model: str) -> Demand:
        """What is asked of this model, and what is done about it."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What one worker is asked of one model, what became of its calls, and how many replicas it knows."""

    demand: Demand
    calls: Tally
    ready: int
    starting: int


@dataclass(frozen=True, slots=True)
class Telling:
    """One worker's, of all models, as of `at`, in seconds since the epoch."""

    at: float
    models: dict[str, Asked]


class DemandSource(Protocol):
    async def of_all(self) -> list[Telling]:
        """Of all workers that are heard of, this one's first and as of now."""
        ...


@dataclass(frozen=True, slots=True)
class Replica:
    """A server of one model.

    `base_url` is what `/v1/…` is appended to, `known_as` what the server calls the model where that is not `model`.
    """

    id: str
    model: str
    base_url: str
    engine: Engine = Engine.VLLM
    known_as: str | None = None


class Fleet(Protocol):
    def models(self) -> Sequence[str]:
        """All models this fleet serves or is about to, ready or not, in a stable order."""
        ...

    def ready(self, model: str) -> Sequence[Replica]:
        """The replicas of `model` that may be sent calls now."""
        ...

    def starting(self, model: str) -> int:
        """How many replicas of `model` are there that may not be sent calls yet, or again."""
        ...

    def call_began(self, replica: Replica) -> None:
        """A call is about to be sent to this replica."""
        ...

    def call_succeeded(self, replica: Replica) -> None:
        """It has begun to answer, properly."""
        ...

    def call_failed(self, replica: Replica) -> None:
        """It answered that it has failed, or not in time: after several of these it gets no calls for a while."""
        ...

    def connection_broke(self, replica: Replica) -> None:
        """A call found this replica unreachable: it is not ready until a probe says otherwise."""
        ...

    def on_change(self, tell: Callable[[str], None]) -> None:
        """Call `tell(model)` whenever the ready replicas of a model, or the number of those that start, have changed."""
        ...

    def on_pressure(self, tell: Callable[[str, Pressure], None]) -> None:
        """Call `tell(replica id, pressure)` whenever an engine has said how full it is."""
        ...

    def waiting_for(self) -> Sequence[str]:
        """Sentences on what is not ready yet; empty when every model has a ready replica."""
        ...


Take = Callable[[bytes], bool]


class Answer(Protocol):
    """An engine's answer whose head has come."""

    status: int
    content_type: str

    def piece(self, take: Take | None = None) -> Awaitable[bytes]:
        """What has come of the body since the last piece; nothing at its end. Raises UpstreamError if it breaks off.

        What comes while somebody waits is shown to `take` first, in the moment in which it comes; where that says True, it is
        taken and the wait goes on. What it declines is the piece, with nothing of what comes behind it.
        """
        ...

    def close(self, error: BaseException | None = None) -> None:
        """No more is wanted. Before the body's end, this aborts the work in the engine."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...


class Upstream(Protocol):
    async def open(self, replica: Replica, path: str, body: bytes, request_id: str, *, repeatable: bool = True) -> Answer:
        """Send a POST and wait for the answer's head. The answer must be closed, or used as `async with`.

        What is not `repeatable` is sent at most once. Raises UpstreamUnreachable (its field `reached` False if nothing was sent)
        or UpstreamTimeout, and TooManyConnections where it is this process that has no socket left.
        """
        ...


class Ledger(Protocol):
    def record(self, entry: Entry) -> None:
        """Keep this entry for good. Returns once it would survive the end of this process, or with the ledger stuck."""
        ...

    def is_stuck(self) -> bool:
        """Whether there are entries that cannot be kept yet: new calls must wait until they are."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """All of them, wired once in `gateway.app`. `habits` is what `limits` learns from calls that end."""

    clock: Clock
    tenants: TenantStore
    limits: LimitStore
    gate: Gate
    fleet: Fleet
    upstream: Upstream
    ledger: Ledger
    habits: Habits
