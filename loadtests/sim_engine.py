"""The engine's model in real time: it sleeps until a step ends, then writes to every stream the tokens that it has by then."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Protocol

from engines.model import EngineFigures, EngineModel, Happening
from loadtests.sim_request import Asked


class Answering(Protocol):
    """Who asked. `tokens` is told as often as there are new ones, `finished` once; after it, neither."""

    asked: Asked

    def tokens(self, count: int) -> None: ...

    def finished(self) -> None: ...


class SimulatedEngine:
    """One engine. A process that is late makes its steps late to be seen, never longer, as an engine's own do not wait for it.

    `clock` is in seconds and goes finer than the loop's own, which counts milliseconds.
    """

    def __init__(self, figures: EngineFigures, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        self.model = EngineModel(figures)
        self.finished = 0
        self.aborted = 0
        self.latest_s = 0.0  # the most that a step was seen late, since it was last asked for
        self._loop = loop
        self._clock = clock
        self._calls: dict[str, Answering] = {}
        self._begun: dict[str, Answering] = {}  # those of them that stream and have a token
        self._joining: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, call_id: str, call: Answering) -> None:
        """The call is in the engine once its server has done its part."""
        self._calls[call_id] = call
        self._joining.add(call_id)
        front_s = self.model.figures.front_s
        if front_s > 0:
            self._loop.call_later(front_s, self._join, call_id)
        else:
            self._join(call_id)

    def abort(self, call_id: str) -> None:
        """Its client has gone."""
        if self._calls.pop(call_id, None) is None:
            return
        self.aborted += 1
        self._begun.pop(call_id, None)
        if call_id in self._joining:
            self._joining.remove(call_id)
        else:
            self.model.abort(call_id, self._clock())
            self._set_timer()

    def take_lateness(self) -> float:
        latest, self.latest_s = self.latest_s, 0.0
        return latest

    def _join(self, call_id: str) -> None:
        if call_id not in self._joining:
            return
        self._joining.remove(call_id)
        asked = self._calls[call_id].asked
        self.model.add(call_id, asked.prompt_tokens, asked.output_tokens, self._clock())
        self._set_timer()

    def _set_timer(self) -> None:
        """For the end of the present step, unless it is set; a step's end never comes nearer."""
        if self._timer is None and (at := self.model.step_ends_at()) is not None:
            wait_ms = math.ceil((at - self._clock()) * 1000)  # whole ones: the loop would round them down, and wake too early
            self._timer = self._loop.call_later(max(0, wait_ms) / 1000, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._clock()
        due = self.model.step_ends_at()
        if due is not None and due <= now:
            self.latest_s = max(self.latest_s, now - due)
        self._tell(now)
        self._set_timer()

    def _tell(self, now: float) -> None:
        for event in self.model.advance(now):
            call = self._calls.get(event.call_id)
            if call is None:  # aborted after it happened
                continue
            if event.what is Happening.FIRST and call.asked.stream:
                self._begun[event.call_id] = call
            elif event.what is Happening.FINISHED:
                del self._calls[event.call_id]
                self._begun.pop(event.call_id, None)
                self.finished += 1
                call.finished()
        for call_id, call in self._begun.items():
            call.tokens(self.model.tokens_of(call_id))
