"""All client connections of one process: how many there may be, who waits, and the one clock that ends what takes too long."""

from __future__ import annotations

import asyncio
import math
from email.utils import formatdate
from time import time
from typing import Protocol

_LOOK_S = 0.5
_LOOK_AGAIN_S = 0.01
_MOST_A_LOOK = 256


class Limits(Protocol):
    """What one client may ask of this process's attention; `gateway.settings.ClientLimits` says each in words."""

    @property
    def head_bytes(self) -> int: ...
    @property
    def head_s(self) -> float: ...
    @property
    def body_grace_s(self) -> float: ...
    @property
    def body_bytes_per_s(self) -> int: ...
    @property
    def idle_s(self) -> float: ...
    @property
    def stall_s(self) -> float: ...
    @property
    def connections(self) -> int: ...


class Connection(Protocol):
    """One of them. Both deadlines are times of the loop: for what its client sends, and for what it is sent."""

    deadline: float
    write_deadline: float

    def expire(self, now: float) -> None:
        """A deadline has passed."""
        ...

    def drop(self) -> None:
        """End it without a word, and be no longer among the `open`."""
        ...


class Connections:
    """`waiting` are those of `open` that wait for a request or for their end, the longest first.

    A call takes two file descriptors, its client's and its engine's, and must not fail for want of the second: `descriptors` is
    how many there are for both.
    """

    def __init__(self, limits: Limits, *, descriptors: float = math.inf) -> None:
        self.limits = limits
        self.open: set[Connection] = set()
        self.waiting: dict[Connection, None] = {}
        self.closing = False  # no request is taken any more
        self._most = limits.connections
        self._descriptors = descriptors
        self._date = b""
        self._date_until = 0.0
        self._look: asyncio.TimerHandle | None = None

    def came(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self.open.add(connection)
        self.waiting[connection] = None
        if self._look is None:
            self._look = loop.call_later(_LOOK_S, self._end_what_is_late, loop)
        self.has_room(connection)

    def left(self, connection: Connection) -> None:
        self.open.discard(connection)
        self.waiting.pop(connection, None)

    def has_room(self, connection: Connection) -> bool:
        """Whether it may stay and start. If need be, the one that has waited longest goes for it."""
        count = len(self.open)
        if count <= self._most and 2 * count - len(self.waiting) <= self._descriptors:
            return True
        oldest = next((waiting for waiting in self.waiting if waiting is not connection), None)
        if oldest is None:
            return False
        oldest.drop()
        return self.has_room(connection)

    def date(self, now: float) -> bytes:
        """The Date header (RFC 9110, 6.6.1), made once a second."""
        if now >= self._date_until:
            self._date = f"date: {formatdate(time(), usegmt=True)}\r\n".encode()
            self._date_until = now + 1.0
        return self._date

    def _end_what_is_late(self, loop: asyncio.AbstractEventLoop) -> None:
        """Some at a time: ten thousand half requests expire together, and their ends must not keep others waiting."""
        now = loop.time()
        late = [connection for connection in self.open if connection.deadline < now or connection.write_deadline < now]
        for connection in late[:_MOST_A_LOOK]:
            connection.expire(now)
        again_s = _LOOK_S if len(late) <= _MOST_A_LOOK else _LOOK_AGAIN_S
        self._look = loop.call_later(again_s, self._end_what_is_late, loop) if self.open else None
