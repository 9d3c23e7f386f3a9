"""A fleet of replicas that some list names and that are probed before they are believed.

The list (`Discovery`) says who should be there; `gateway.policy.breaker` says who is ready. While the list cannot be read the
last one stays in force: losing the control plane stops no calls.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp
import msgspec

from gateway.policy.breaker import Breaker, Health, Probe
from gateway.ports import Replica

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """A server that the list names. Which models it has, it is asked itself."""

    id: str
    base_url: str


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


class _Model(msgspec.Struct, frozen=True):
    id: str


class _Models(msgspec.Struct, frozen=True):
    data: tuple[_Model, ...]


@dataclass(slots=True)
class _Member:
    target: Target
    breaker: Breaker = field(default_factory=Breaker)
    models: tuple[str, ...] = ()


class ProbedFleet:
    """Use as `async with`: it looks at the list and at every replica once each `look_s` seconds for as long as the block."""

    def __init__(self, discoveries: Sequence[Discovery], *, look_s: float, probe_timeout_s: float) -> None:
        self._discoveries = discoveries
        self._look_s = look_s
        self._probe_timeout_s = probe_timeout_s
        self._listings: dict[Discovery, Listing] = {}
        self._unreadable: dict[Discovery, str] = {}
        self._members: dict[str, _Member] = {}
        self._ready: dict[str, tuple[Replica, ...]] = {}
        self._listeners: list[Callable[[str], None]] = []
        self._looking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> ProbedFleet:
        self._looking = asyncio.create_task(self._look_forever())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def models(self) -> Sequence[str]:
        expected = (model for listing in self._listings.values() for model in listing.expected)
        found = (model for member in self._members.values() for model in member.models)
        return tuple(dict.fromkeys((*expected, *found)))

    def ready(self, model: str) -> Sequence[Replica]:
        return self._ready.get(model, ())

    def connection_broke(self, replica: Replica) -> None:
        member = self._members.get(replica.id)
        if member is not None:
            member.breaker = member.breaker.connection_broke()
            self._publish()

    def on_change(self, tell: Callable[[str], None]) -> None:
        self._listeners.append(tell)

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

    def _is_known(self, target: Target) -> bool:
        return target.id in self._members and self._members[target.id].target == target

    async def _look_forever(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._probe_timeout_s)) as session:
            while True:
                await self.look(session)
                await asyncio.sleep(self._look_s)

    async def _read(self, discovery: Discovery, session: aiohttp.ClientSession) -> None:
        try:
            self._listings[discovery] = await discovery.listing(session)
            self._unreadable.pop(discovery, None)
        except ListUnreadable as problem:
            if discovery in self._listings and discovery not in self._unreadable:
                log.warning("The last list of replicas stays in force: %s", problem)
            self._unreadable[discovery] = str(problem)

    async def _probe(self, member: _Member, session: aiohttp.ClientSession) -> None:
        before = member.breaker
        try:
            async with session.get(f"{member.target.base_url}/health") as response:
                probe = Probe.ANSWERED if response.status == 200 else Probe.REFUSED
            if probe is Probe.ANSWERED and not member.models:
                async with session.get(f"{member.target.base_url}/v1/models") as response:
                    listed = msgspec.json.decode(await response.read(), type=_Models)
                    member.models = tuple(model.id for model in listed.data)
        except TimeoutError:
            probe = Probe.SILENT
        except (aiohttp.ClientError, msgspec.DecodeError):
            probe = Probe.REFUSED
        # A call may have found the connection broken while the probe was under way; the probe began earlier and yields.
        if member.breaker is before:
            member.breaker = before.probed(probe)

    def _publish(self) -> None:
        ready: dict[str, tuple[Replica, ...]] = {}
        for member in self._members.values():
            if member.breaker.health is Health.READY:
                for model in member.models:
                    replica = Replica(member.target.id, model, member.target.base_url)
                    ready[model] = (*ready.get(model, ()), replica)
        changed = [model for model in {**self._ready, **ready} if self._ready.get(model) != ready.get(model)]
        self._ready = ready
        for model in changed:
            log.info("%s: %d replicas ready", model, len(ready.get(model, ())))
            for tell in self._listeners:
                tell(model)
