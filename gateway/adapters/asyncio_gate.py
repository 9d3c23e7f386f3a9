"""The gate of one gateway process: `gateway.policy.admission` decides, asyncio waits."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Self

from gateway.errors import QueueTimeout, ServerOverloaded
from gateway.policy.admission import Decision, Patience, Queue, Ticket
from gateway.ports import Clock


class AsyncioGate:
    """One queue a model."""

    def __init__(self, patience: Patience, clock: Clock) -> None:
        self._patience = patience
        self._clock = clock
        self._queues: dict[str, Queue] = {}
        self._starts: dict[Ticket, asyncio.Future[None]] = {}
        self._numbers = count(1)

    def place(self, model: str) -> QueuedPlace:
        return QueuedPlace(self, model, self._queue(model))

    def retry_after_s(self, model: str) -> float:
        return self._queue(model).retry_after_s(self._clock.monotonic())

    def resize(self, model: str, places: int) -> None:
        self._start(self._queue(model).resize(places))

    def counts(self, model: str) -> tuple[int, int]:
        """Running and waiting calls."""
        queue = self._queue(model)
        return queue.running, queue.waiting

    def _queue(self, model: str) -> Queue:
        queue = self._queues.get(model)
        if queue is None:
            queue = self._queues[model] = Queue(self._patience)
        return queue

    async def _wait(self, model: str, queue: Queue, ticket: Ticket) -> None:
        """Until the ticket starts. The patience is read anew each time it runs out, since the fleet may have changed."""
        start = self._starts[ticket] = asyncio.get_running_loop().create_future()
        came = self._clock.monotonic()
        try:
            while not start.done():
                left_s = queue.patience_s() - (self._clock.monotonic() - came)
                if left_s <= 0:
                    raise QueueTimeout(
                        model=model, waited_s=self._clock.monotonic() - came, retry_after_s=self.retry_after_s(model)
                    )
                await asyncio.wait([start], timeout=left_s)
        finally:
            del self._starts[ticket]

    def _start(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            start = self._starts[ticket]
            if not start.done():
                start.set_result(None)


class QueuedPlace:
    """A place in one of the gate's queues. If waiting for it is cancelled, it is given back at once."""

    __slots__ = ("_gate", "_model", "_queue", "_ticket")

    def __init__(self, gate: AsyncioGate, model: str, queue: Queue) -> None:
        self._gate = gate
        self._model = model
        self._queue = queue
        self._ticket = Ticket(0)

    async def take(self) -> None:
        gate, queue = self._gate, self._queue
        self._ticket = Ticket(next(gate._numbers))
        decision = queue.arrive(self._ticket, gate._clock.monotonic())
        if decision is Decision.START:
            return
        if decision is Decision.REJECT:
            raise ServerOverloaded(model=self._model, retry_after_s=gate.retry_after_s(self._model))
        try:
            await gate._wait(self._model, queue, self._ticket)
        except BaseException:
            self.give_back()
            raise

    def give_back(self, error: BaseException | None = None) -> None:
        self._gate._start(self._queue.leave(self._ticket, self._gate._clock.monotonic()))

    async def __aenter__(self) -> Self:
        await self.take()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.give_back()
