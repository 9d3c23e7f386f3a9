"""The gate of one gateway process: `gateway.policy.admission` decides, asyncio waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from gateway.errors import QueueTimeout, ServerOverloaded
from gateway.policy.admission import Decision, Patience, Queue, Ticket
from gateway.ports import Clock


class AsyncioGate:
    """One queue a model. A place is given back when the `async with` block ends, whatever ends it."""

    def __init__(self, patience: Patience, clock: Clock) -> None:
        self._patience = patience
        self._clock = clock
        self._queues: dict[str, Queue] = {}
        self._starts: dict[Ticket, asyncio.Future[None]] = {}
        self._numbers = count(1)

    @asynccontextmanager
    async def place(self, model: str) -> AsyncIterator[None]:
        queue, ticket = self._queue(model), Ticket(next(self._numbers))
        decision = queue.arrive(ticket, self._clock.monotonic())
        if decision is Decision.REJECT:
            raise ServerOverloaded(model=model, retry_after_s=self.retry_after_s(model))
        try:
            if decision is Decision.WAIT:
                await self._wait(model, queue, ticket)
            yield
        finally:
            self._start(queue.leave(ticket, self._clock.monotonic()))

    def retry_after_s(self, model: str) -> float:
        return self._queue(model).retry_after_s(self._clock.monotonic())

    def resize(self, model: str, places: int) -> None:
        self._start(self._queue(model).resize(places))

    def counts(self, model: str) -> tuple[int, int]:
        """Running and waiting calls."""
        queue = self._queue(model)
        return queue.running, queue.waiting

    def _queue(self, model: str) -> Queue:
        return self._queues.setdefault(model, Queue(self._patience))

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
