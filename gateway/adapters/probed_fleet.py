"""A fleet of replicas that some list names and that are probed before they are believed.

The list (`Discovery`) says who should be there; `gateway.policy.breaker` says who is ready. While the list cannot be read the
last one stays in force: losing the control plane stops no calls. Apart from the probes, and never holding them up, engines are
asked how full their KV caches are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp
import msgspec

from gateway.policy.breaker import Breaker, Health, Probe
from gateway.policy.routing import Pressure
from gateway.ports import Replica
from gateway.protocol import model_list, vllm_metrics
from gateway.protocol.plain import Engine, engine_of

log = logging.getLogger(__name__)

_DEPLOYING = "deploying"  # Ray Serve's word for an application whose replicas are on their way
_GAUGE_S = 1.0
_OWN_FAULT_S = 0.05  # a timeout noticed so late says that this process is busy, and nothing of the replica
_ROUNDS_WITHOUT = 30  # that a server is left alone whose page said nothing of its KV cache


@dataclass(frozen=True, slots=True)
class Target:
    """A server that the list names. Which models it has, it is asked itself; what it runs too, unless `engine` says it.

    `names` are its models' names for clients, by its own, where they differ.
    """

    id: str
    base_url: str
    engine: Engine | None = None
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listing:
    """One reading of the list. `expected` maps each model that should be served to a word on how it is."""

    targets: Sequence[Target] = ()
    expected: Mapping[str, str] = field(default_factory=dict)


class ListUnreadable(Exception):
    """The list could not be read; the message says why, in one sentence."""


class Discovery(Protocol):
    async def listing(self, session: aiohttp.ClientSession) -> Listing:
        """Raises ListUnreadable."""
        ...


@dataclass(slots=True)
class _Member:
    target: Target
    breaker: Breaker = field(default_factory=Breaker)
    engine: Engine = Engine.OTHER
    models: dict[str, str] = field(default_factory=dict)  # by their names for clients, those that the server knows
    rounds_to_skip: int = 0


class ProbedFleet:
    """Use as `async with`: it looks at the list and at every replica once each `look_s` seconds for as long as the block."""

    def __init__(self, discoveries: Sequence[Discovery], *, look_s: float, probe_timeout_s: float) -> None:
        self._discoveries = discoveries
        self._look_s = look_s
        self._probe_timeout_s = probe_timeout_s
        self._listings: dict[Discovery, Listing] = {}
        self._unreadable: dict[Discovery, str] = {}
        self._members: dict[str, _Member] = {}
        self._models: tuple[str, ...] = ()
        self._ready: dict[str, tuple[Replica, ...]] = {}
        self._starting: dict[str, int] = {}
        self._listeners: list[Callable[[str], None]] = []
        self._pressure_listeners: list[Callable[[str, Pressure], None]] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> ProbedFleet:
        self._tasks = [
            asyncio.create_task(self._forever(self.look, self._look_s)),
            asyncio.create_task(self._forever(self.gauge, _GAUGE_S)),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def models(self) -> Sequence[str]:
        return self._models

    def ready(self, model: str) -> Sequence[Replica]:
        return self._ready.get(model, ())

    def starting(self, model: str) -> int:
        return self._starting.get(model, 0)

    def call_began(self, replica: Replica) -> None:
        if not self._is_settled(replica):
            self._heard(replica, lambda breaker: breaker.call_began(_now()))

    def call_succeeded(self, replica: Replica) -> None:
        if not self._is_settled(replica):
            self._heard(replica, Breaker.call_succeeded)

    def call_failed(self, replica: Replica) -> None:
        self._heard(replica, lambda breaker: breaker.call_failed(_now()))

    def connection_broke(self, replica: Replica) -> None:
        self._heard(replica, lambda breaker: breaker.connection_broke(_now()))

    def on_change(self, tell: Callable[[str], None]) -> None:
        self._listeners.append(tell)

    def on_pressure(self, tell: Callable[[str, Pressure], None]) -> None:
        self._pressure_listeners.append(tell)

    def waiting_for(self) -> Sequence[str]:
        waiting = list(self._unreadable.values())
        states = {model: state for listing in self._listings.values() for model, state in listing.expected.items()}
        waiting += [
            f"a ready replica of {model} ({states.get(model, 'none')})" for model in self.models() if not self.ready(model)
        ]
        return waiting if waiting or self.models() else ["a first model: the fleet has none yet"]

    async def look(self, session: aiohttp.ClientSession) -> None:
        """One round: read every list, probe every replica, tell what has changed."""
        await asyncio.gather(*(self._read(discovery, session) for discovery in self._discoveries))
        targets = {target.id: target for listing in self._listings.values() for target in listing.targets}
        self._members = {
            target_id: self._members[target_id] if self._is_known(target) else _Member(target)
            for target_id, target in targets.items()
        }
        await asyncio.gather(*(self._probe(member, session) for member in self._members.values()))
        self._publish()

    async def gauge(self, session: aiohttp.ClientSession) -> None:
        """One round: ask the engines that are alive how full they are, and tell."""
        await asyncio.gather(*(self._gauge(member, session) for member in self._members.values() if member.breaker.is_alive))

    def _is_settled(self, replica: Replica) -> bool:
        member = self._members.get(replica.id)
        return member is None or member.breaker.is_settled

    def _heard(self, replica: Replica, event: Callable[[Breaker], Breaker]) -> None:
        """What a call has to say of its replica."""
        member = self._members.get(replica.id)
        if member is None:
            return
        before, member.breaker = member.breaker, event(member.breaker)
        if member.breaker.health is not before.health:
            log.info("%s: %s after a call, was %s", replica.id, member.breaker.health.value, before.health.value)
            self._publish()

    def _is_known(self, target: Target) -> bool:
        return target.id in self._members and self._members[target.id].target == target

    async def _forever(self, do: Callable[[aiohttp.ClientSession], Awaitable[None]], every_s: float) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._probe_timeout_s)) as session:
            while True:
                await do(session)
                await asyncio.sleep(every_s)

    async def _read(self, discovery: Discovery, session: aiohttp.ClientSession) -> None:
        try:
            self._listings[discovery] = await discovery.listing(session)
            self._unreadable.pop(discovery, None)
        except ListUnreadable as problem:
            if discovery in self._listings and discovery not in self._unreadable:
                log.warning("The last list of replicas stays in force: %s", problem)
            self._unreadable[discovery] = str(problem)

    async def _probe(self, member: _Member, session: aiohttp.ClientSession) -> None:
        before, began = member.breaker, _now()
        try:
            probe = Probe.ANSWERED if await _is_healthy(member.target, session) else Probe.REFUSED
            if probe is Probe.ANSWERED and not (member.models and before.is_alive):  # it may come back with another model
                async with session.get(f"{member.target.base_url}/v1/models") as response:
                    _take_in(member, model_list.read(await response.read()))
        except TimeoutError:
            if _now() - began - self._probe_timeout_s > _OWN_FAULT_S:
                return
            probe = Probe.SILENT
        except (aiohttp.ClientError, msgspec.DecodeError, UnicodeDecodeError):
            probe = Probe.REFUSED
        # A call may have found the connection broken while the probe was under way; the probe began earlier and yields.
        if member.breaker.health is before.health:
            member.breaker = member.breaker.probed(probe, _now())

    async def _gauge(self, member: _Member, session: aiohttp.ClientSession) -> None:
        if member.rounds_to_skip:
            member.rounds_to_skip -= 1
            return
        pressure = None
        try:
            async with session.get(f"{member.target.base_url}/metrics") as response:
                if response.status == 200:
                    pressure = vllm_metrics.pressure(await response.read())
        except (TimeoutError, aiohttp.ClientError) as problem:
            log.debug("%s: no metrics: %s", member.target.id, problem)
        if pressure is None:
            member.rounds_to_skip = _ROUNDS_WITHOUT
            return
        for tell in self._pressure_listeners:
            tell(member.target.id, pressure)

    def _publish(self) -> None:
        expected = [model for listing in self._listings.values() for model in listing.expected]
        found = [model for member in self._members.values() for model in member.models]
        self._models = tuple(dict.fromkeys((*expected, *found)))
        ready = self._replicas(lambda breaker: breaker.takes_calls)
        alive = self._replicas(lambda breaker: breaker.is_alive)
        # Where every replica's calls fail, the calls may be what is wrong; leaving none would fail all the others too.
        ready = {model: ready.get(model) or alive[model] for model in alive}
        starting = {model: count for model in self._models if (count := self._count_starting(model, ready))}
        changed = [model for model in {**self._ready, **ready} if self._ready.get(model) != ready.get(model)]
        for model in changed:
            log.info("%s: %d replicas ready", model, len(ready.get(model, ())))
        changed += [model for model in {**self._starting, **starting} if self._starting.get(model) != starting.get(model)]
        self._ready, self._starting = ready, starting
        for model in dict.fromkeys(changed):
            for tell in self._listeners:
                tell(model)

    def _count_starting(self, model: str, ready: Mapping[str, Sequence[Replica]]) -> int:
        """Of those that never were ready, the ones that have the model, or may turn out to: they have not said yet."""
        if ready.get(model):
            return sum(model in member.models for member in self._members.values() if member.breaker.health is Health.STARTING)
        unsaid = sum(member.breaker.health is Health.STARTING for member in self._members.values())
        states = [listing.expected[model] for listing in self._listings.values() if model in listing.expected]
        return unsaid or states.count(_DEPLOYING)

    def _replicas(self, wanted: Callable[[Breaker], bool]) -> dict[str, tuple[Replica, ...]]:
        """By model, those of its replicas whose breaker is as wanted."""
        found: dict[str, tuple[Replica, ...]] = {}
        for member in self._members.values():
            if wanted(member.breaker):
                for model, its_own in member.models.items():
                    known_as = None if its_own == model else its_own
                    replica = Replica(member.target.id, model, member.target.base_url, member.engine, known_as)
                    found[model] = (*found.get(model, ()), replica)
        return found


async def _is_healthy(target: Target, session: aiohttp.ClientSession) -> bool:
    """What a server says at /health; where it has no such address, as llama-cpp-python's, that it lists its models has to do."""
    for path in ("/health", "/v1/models"):
        async with session.get(target.base_url + path) as response:
            if response.status not in (404, 405):
                return response.status == 200
    return False


def _take_in(member: _Member, listed: Sequence[model_list.Model]) -> None:
    target = member.target
    member.models = {target.names.get(model.id, model.id): model.id for model in listed}
    member.engine = target.engine or engine_of(tuple(model.owned_by for model in listed))


def _now() -> float:
    return asyncio.get_running_loop().time()
