"""The gate of one gateway process: `gateway.policy.admission` decides, asyncio waits."""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Self

from gateway.errors import QueueTimeout, ServerOverloaded
from gateway.policy.admission import Ask, Capacity, Decision, Demand, Rules, Ticket, WaitingRoom
from gateway.policy.caller import Callers, Like
from gateway.ports import Clock, Tally, Tell
from gateway.protocol.usage import NO_USAGE, Usage

_HEAR_S = 0.5  # between two looks at how far the running calls are


class AsyncioGate:
    """One waiting room a model. Who waits and wants to hear of it is told so every `heartbeat_s` seconds.

    `spread` gives the random numbers, from 0 to 1, by which those who are turned away do not come back together.
    """

    def __init__(
        self, rules: Rules, clock: Clock, *, heartbeat_s: float = 2.0, spread: Callable[[], float] = random.random
    ) -> None:
        self._rules = rules
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._spread = spread
        self._lines: dict[str, _Line] = {}

    def place(self, model: str, ask: Ask, like: Like | None = None, used: Callable[[], Usage] | None = None) -> QueuedPlace:
        return QueuedPlace(self._line(model), ask, like, used)

    def resize(self, model: str, capacity: Capacity) -> None:
        line = self._line(model)
        line.capacity = capacity
        line.start(line.room.resize(capacity, self._clock.monotonic()))

    def output_cap(self, model: str, ask: Ask) -> int | None:
        return self._line(model).room.output_cap(ask, self._clock.monotonic())

    def prefers_fall_back(self, model: str, ask: Ask) -> bool:
        return self._line(model).room.prefers_fall_back(ask, self._clock.monotonic())

    def has_room(self, model: str) -> bool:
        line = self._line(model)
        return not line.starts and line.room.running < line.capacity.places

    def tally(self, model: str) -> Tally:
        return self._line(model).tally

    def demand(self, model: str) -> Demand:
        return self._line(model).room.demand(self._clock.monotonic())

    def counts(self, model: str) -> tuple[int, int]:
        """Running and waiting calls."""
        line = self._line(model)
        return line.room.running, line.room.waiting

    def _line(self, model: str) -> _Line:
        line = self._lines.get(model)
        if line is None:
            line = self._lines[model] = _Line(model, self._rules, self._clock, self._heartbeat_s, self._spread)
        return line


class _Line:
    """The calls of one model: those in its waiting room, and those that have a place and begin again elsewhere."""

    def __init__(self, model: str, rules: Rules, clock: Clock, heartbeat_s: float, spread: Callable[[], float]) -> None:
        self.model = model
        self.room = WaitingRoom(rules)
        self.capacity = Capacity(0)
        self.starts: dict[Ticket, asyncio.Future[None]] = {}
        self.tally = Tally()
        self.callers = Callers()
        self.numbers = count(1)
        self.running: dict[Ticket, Callable[[], Usage] | None] = {}
        self._heard = -math.inf
        self._rules = rules
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._spread = spread
        self._resuming: deque[asyncio.Future[None]] = deque()

    def now(self) -> float:
        return self._clock.monotonic()

    def hear(self, now: float) -> None:
        """How far the running calls are, where the room has too little else to tell by."""
        if self.room.wants_progress and now >= self._heard + _HEAR_S:
            self._heard = now
            told = self.running.items()
            self.room.progress({ticket: None if used is None else used().completion_tokens or 0 for ticket, used in told}, now)

    def expect(self, ask: Ask, like: Like | None) -> float:
        """When a call like this one may come again: a promise, to be taken up by the next one that is alike."""
        now = self.now()
        self.hear(now)
        if like is None:
            return self.room.retry_after_s(ask, now, self._spread())
        name = self.callers.name()
        told_s = self.room.retry_after_s(_from(name, ask), now, self._spread())
        self.callers.tell(like(), name, told_s, now)
        return told_s

    def start(self, tickets: list[Ticket]) -> None:
        """These start now. Whoever begins again does so before any of the others, for its place counts as taken."""
        for ticket in tickets:
            self.starts[ticket].set_result(None)
        resuming = self._resuming
        while resuming and self.room.running - len(resuming) < self.capacity.places:
            resuming.popleft().set_result(None)

    def leave(self, ticket: Ticket, used: tuple[int, int] | None = None) -> None:
        self.running.pop(ticket, None)
        self.start(self.room.leave(ticket, self.now(), used))

    async def wait_to_start(self, ticket: Ticket, retry_after_s: Callable[[], float], tell: Tell | None) -> None:
        """If this is cancelled or gives up, the ticket is gone, and its place, if it had just got one, is another's."""
        room = self.room
        start = self.starts[ticket] = asyncio.get_running_loop().create_future()
        try:
            await self._wait(
                start,
                retry_after_s,
                lambda: room.patience_s(ticket),
                lambda: (room.position(ticket), room.expected_wait_s(ticket, self.now())),
                tell,
            )
        except BaseException as problem:
            if isinstance(problem, QueueTimeout):
                self.tally.evicted += 1
            else:
                self.tally.left += 1
            del self.starts[ticket]
            self.leave(ticket)
            raise
        del self.starts[ticket]

    async def wait_to_resume(self, retry_after_s: Callable[[], float], tell: Tell | None) -> None:
        """Until not more calls are under way than there is room for, this one included."""
        resuming, rules = self._resuming, self._rules
        if self.room.running - len(resuming) <= self.capacity.places:
            return
        start = asyncio.get_running_loop().create_future()
        resuming.append(start)
        try:
            await self._wait(
                start,
                retry_after_s,
                lambda: rules.busy_s if self.capacity.places else rules.cold_s,
                lambda: (resuming.index(start) + 1, None),
                tell,
            )
        finally:
            if start in resuming:
                resuming.remove(start)

    async def _wait(
        self,
        start: asyncio.Future[None],
        retry_after_s: Callable[[], float],
        patience_s: Callable[[], float],
        where: Callable[[], tuple[int, float | None]],
        tell: Tell | None,
    ) -> None:
        """The patience is read anew each time it runs out, since the fleet may have changed; while it lasts, it is not cut."""
        came = now = self.now()
        runs_out = came + patience_s()
        beat = came + self._heartbeat_s
        while not start.done():
            if now >= runs_out:
                runs_out = came + patience_s()
                if now >= runs_out:
                    position, _ = where()
                    raise QueueTimeout(model=self.model, waited_s=now - came, retry_after_s=retry_after_s(), position=position)
            if now < beat:
                await asyncio.wait([start], timeout=min(runs_out, beat) - now)
            else:
                beat = now + self._heartbeat_s
                self.hear(now)
                self.start(self.room.resize(self.capacity, now))  # what is believed of the engines changes with time alone
                if tell is not None and not start.done():
                    with suppress(TimeoutError):  # a client that does not read may wait as long as the others, and no longer
                        async with asyncio.timeout(runs_out - now):
                            await tell(*where())
            now = self.now()


class QueuedPlace:
    """A place in one of the gate's lines. If waiting for it is cancelled, it is given back at once."""

    __slots__ = ("_ask", "_like", "_line", "_ticket", "_used", "position")

    def __init__(self, line: _Line, ask: Ask, like: Like | None, used: Callable[[], Usage] | None) -> None:
        self._line = line
        self._ask = ask
        self._like = like
        self._used = used
        self._ticket = Ticket(0)
        self.position = 0

    async def take(self, tell: Tell | None = None) -> None:
        line, ask, like, now = self._line, self._ask, self._like, self._line.now()
        if like is not None and line.callers.expected:
            ask = _from(line.callers.come(like(), now), ask)
        line.hear(now)
        self._ticket = ticket = Ticket(next(line.numbers))
        decision = line.room.arrive(ticket, ask, now)
        if decision is Decision.START:
            line.tally.at_once += 1
            line.running[ticket] = self._used
            return
        if decision is Decision.REJECT:
            line.tally.rejected += 1
            raise ServerOverloaded(model=line.model, retry_after_s=self.retry_after_s())
        line.tally.waited += 1
        self.position = line.room.position(ticket)
        await line.wait_to_start(ticket, self.retry_after_s, tell)
        line.running[ticket] = self._used

    async def resume(self, tell: Tell | None = None) -> None:
        self._line.tally.resumed += 1
        await self._line.wait_to_resume(self.retry_after_s, tell)

    def first_token(self, took_s: float) -> None:
        line = self._line
        line.start(line.room.first_token(self._ticket, took_s, line.now()))

    def retry_after_s(self) -> float:
        return self._line.expect(self._ask, self._like)

    def give_back(self, used: Usage = NO_USAGE) -> None:
        counted = None if used is NO_USAGE else (used.prompt_tokens, used.completion_tokens or 0)
        self._line.leave(self._ticket, counted)

    async def __aenter__(self) -> Self:
        await self.take()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.give_back()


def _from(caller: str, ask: Ask) -> Ask:
    """The same, from him. (`dataclasses.replace` takes several times as long.)"""
    return Ask(ask.tenant, ask.tier, ask.prompt_tokens, ask.output_tokens, ask.weight, ask.patience_s, caller)
