"""A model of one vLLM engine: continuous batching with a token budget a step, chunked prefill, KV blocks and preemption. Pure.

Time is whatever the caller says it is. A simulation asks `next_event_at` and jumps there; a server sleeps until `step_ends_at`
and then looks at `tokens_of` each stream. Decoding is not stepped through sequence by sequence: all that decode advance
together, so a step costs the same for one as for 256 of them, and a run of steps in which nothing changes costs as much as one.

After vLLM 0.29's scheduler in its default settings: waiting calls first come first served and without a bound, one starts
only if its whole prompt fits into the free KV blocks, and when a running one needs a block and none is left, the one that started
last loses all of its blocks and computes everything anew. Not modelled: prefix caching, speculation, parallel engines.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, replace
from enum import StrEnum
from heapq import heappop, heappush
from typing import NamedTuple

_NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """What an engine is like. A step takes

        step_s + prefill_token_s * prompt tokens in it + decode_call_s * decoding calls + context_token_s * their context tokens

    seconds. `front_s` is what a call takes before the engine knows of it (HTTP, counting tokens): not this model's, but that of
    whoever adds the calls. Raises ValueError where the parts do not fit together.
    """

    step_s: float
    prefill_token_s: float
    decode_call_s: float
    context_token_s: float = 0.0
    front_s: float = 0.0
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    max_model_len: int = 8192
    kv_blocks: int = 8192
    block_tokens: int = 16

    def __post_init__(self) -> None:
        times = (self.step_s, self.prefill_token_s, self.decode_call_s, self.context_token_s, self.front_s)
        if not self.step_s > 0 or not all(0 <= time < math.inf for time in times):
            raise ValueError(f"no step takes no time, or less: {times}")
        if not 0 < self.max_num_seqs <= self.max_num_batched_tokens:
            raise ValueError("max_num_batched_tokens must be at least max_num_seqs, and that at least 1")
        if not 0 < self.max_model_len <= self.kv_tokens:
            raise ValueError("the longest call, max_model_len, must fit into the KV blocks")

    @property
    def kv_tokens(self) -> int:
        return self.kv_blocks * self.block_tokens

    def batch(self, prompt_tokens: float, output_tokens: float) -> float:
        """How many calls of that size decode at once when the engine is full."""
        return min(self.max_num_seqs, self.kv_tokens / (prompt_tokens + output_tokens / 2))

    def calls_per_s(self, prompt_tokens: float, output_tokens: float) -> float:
        """About the most calls of that size that it completes: each costs its prefill and its share of the steps it is in."""
        decode_s = self.step_s / self.batch(prompt_tokens, output_tokens) + self.decode_call_s
        decode_s += self.context_token_s * (prompt_tokens + output_tokens / 2)
        return 1.0 / (self.prefill_token_s * prompt_tokens + decode_s * output_tokens)

    def scaled(self, factor: float) -> EngineFigures:
        """The same engine, so many times as fast."""
        return replace(
            self,
            step_s=self.step_s / factor,
            prefill_token_s=self.prefill_token_s / factor,
            decode_call_s=self.decode_call_s / factor,
            context_token_s=self.context_token_s / factor,
            front_s=self.front_s / factor,
        )


class Happening(StrEnum):
    FIRST = "first"  # the call's first token is there
    PREEMPTED = "preempted"  # it has lost its blocks and waits; no token until it has computed everything anew
    FINISHED = "finished"  # its last token is there, and the call is forgotten


class Event(NamedTuple):
    """What happened to a call at the time `at`, when it had so many tokens of its answer."""

    at: float
    what: Happening
    call_id: str
    tokens: int


class CallTooLong(ValueError):
    """Prompt and answer together are more than the model's context."""


@dataclass(slots=True, eq=False)
class _Call:
    """`produced` and `computed` hold while it waits or prefills; while it decodes, they are `offset` plus the steps done."""

    id: str
    prompt_tokens: int
    output_tokens: int
    produced: int = 0
    computed: int = 0
    chunk: int = 0
    blocks: int = 0
    decodes: bool = False
    offset: int = 0

    @property
    def to_compute(self) -> int:
        """The tokens that must be in the KV cache before the next one comes."""
        return self.prompt_tokens + self.produced


class EngineModel:
    """Calls are added and aborted at times that never decrease. What happened is handed out by the next `advance`.

    A step's members are settled when it begins: a call that comes during a step joins the next one. One that is aborted during
    a step leaves at once, but the step takes as long as it would have.

    Invariants: blocks in use and free are all blocks; no more than `max_num_seqs` run; while anything runs, a step is under way.
    """

    def __init__(self, figures: EngineFigures) -> None:
        self.figures = figures
        self.prompt_tokens = 0  # all that were prefilled, recomputed ones not counted again
        self.generation_tokens = 0
        self.preemptions = 0
        self._events: list[Event] = []
        self._calls: dict[str, _Call] = {}
        self._waiting: OrderedDict[str, _Call] = OrderedDict()
        self._running: dict[str, _Call] = {}  # in the order in which they started
        self._prefills: dict[str, _Call] = {}  # those of them that do not decode yet
        self._free = figures.kv_blocks
        # All decoding calls together: how many; their context; how many need a block at each step, modulo a block's tokens.
        self._decoding = 0
        self._context = 0
        self._needing = [0] * figures.block_tokens
        self._ends: list[tuple[int, int, _Call]] = []  # by the step that ends them; stale ones are left in
        self._entered = 0
        self._step = 0  # steps done
        # The steps under way: since when, how many at most before something changes, what the first takes, what it grows by.
        self._began = 0.0
        self._most = 0
        self._first_s = 0.0
        self._growth_s = 0.0

    # What may be asked

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def kv_usage(self) -> float:
        """The share of the KV blocks in use."""
        return 1.0 - self._free / self.figures.kv_blocks

    def tokens_of(self, call_id: str) -> int:
        """How many tokens of its answer a call has. Raises KeyError for one that has finished or never was."""
        call = self._calls[call_id]
        return call.offset + self._step if call.decodes else call.produced

    def step_ends_at(self) -> float | None:
        """When the present step ends; None while there is nothing to do."""
        return self._end_of(1) if self._most else None

    def next_event_at(self) -> float | None:
        """Nothing happens before then unless a call is added or aborted; None while there is nothing to do."""
        return self._end_of(self._most) if self._most else None

    # What may be done

    def add(self, call_id: str, prompt_tokens: int, output_tokens: int, now: float) -> None:
        """Raises CallTooLong, and ValueError for an id that is in use, for sizes below 1."""
        if call_id in self._calls or prompt_tokens < 1 or output_tokens < 1:
            raise ValueError(f"call {call_id!r} of {prompt_tokens} + {output_tokens} tokens is in use or has no size")
        if prompt_tokens + output_tokens > self.figures.max_model_len:
            raise CallTooLong(f"{prompt_tokens} + {output_tokens} tokens are more than {self.figures.max_model_len}")
        self._reach(now)
        call = self._calls[call_id] = _Call(call_id, prompt_tokens, output_tokens)
        self._waiting[call_id] = call
        if not self._most:
            self._begin(now)
        elif len(self._waiting) == 1:  # behind others, it changes nothing
            self._most = 1

    def abort(self, call_id: str, now: float) -> None:
        """Its place and blocks are free at once. Nothing happens if it has finished by then or never was."""
        self._reach(now)
        call = self._calls.pop(call_id, None)
        if call is None:
            return
        self._most = 1  # whoever is next may start now
        if self._waiting.pop(call_id, None) is None:
            self._leave(call, blocks=self._blocks_during_step(call))

    def reach(self, now: float) -> None:
        """So that `tokens_of` says what holds now. What happens until then is still told by the next `advance`."""
        self._reach(now)

    def advance(self, now: float) -> list[Event]:
        """All that happened up to now and was not told yet, in its order."""
        self._reach(now)
        events, self._events = self._events, []
        return events

    # Steps

    def _reach(self, now: float) -> None:
        while self._most and self._began + self._first_s <= now:
            steps = self._steps_until(now) if self._most > 1 else 1
            at = self._end_of(steps)
            self._complete(steps, at)
            self._begin(at)

    def _end_of(self, steps: int) -> float:
        """The end of that many of the steps under way: each takes longer than the one before, as the contexts grow."""
        return self._began + steps * (self._first_s + 0.5 * (steps - 1) * self._growth_s)

    def _steps_until(self, now: float) -> int:
        """How many of them have ended by now; at least one has."""
        most = self._most
        if most == 1 or self._end_of(most) <= now:
            return most
        done, beyond = 1, most
        while beyond - done > 1:
            middle = (done + beyond) // 2
            if self._end_of(middle) <= now:
                done = middle
            else:
                beyond = middle
        return done

    def _begin(self, at: float) -> None:
        """Settle who takes part in the next step, and for how many steps that holds."""
        self._began = at
        if not self._calls:
            self._most = 0
            return
        figures, prefilled = self.figures, 0
        if untouched := self._decode_blocks(at):
            budget = figures.max_num_batched_tokens - self._decoding
            if self._prefills:
                for call in list(self._prefills.values()):
                    prefilled += self._prefill(call, budget - prefilled, at)
            if self._waiting:
                prefilled += self._admit(budget - prefilled)
        decode_s = self._decoding * figures.decode_call_s + self._context * figures.context_token_s
        self._first_s = figures.step_s + prefilled * figures.prefill_token_s + decode_s
        self._growth_s = self._decoding * figures.context_token_s
        self._most = self._steps_alike() if untouched and not self._prefills else 1

    def _steps_alike(self) -> int:
        """No step more than the first to finish has left, and none for which there might be no block."""
        with_blocks = 1 + self._free // self._decoding * self.figures.block_tokens
        return min(self._next_end() - self._step, with_blocks)

    def _decode_blocks(self, at: float) -> bool:
        """Give the decoding calls the blocks that the next step needs; whether nobody had to lose theirs for it."""
        untouched = True
        while self._needing[-self._step % self.figures.block_tokens] > self._free:
            self._preempt(next(reversed(self._running.values())), at)
            untouched = False
        self._free -= self._needing[-self._step % self.figures.block_tokens]
        return untouched

    def _admit(self, budget: int) -> int:
        """Start waiting calls as long as there is room for them; how many of their tokens are computed in this step."""
        prefilled = 0
        while self._waiting and prefilled < budget and len(self._running) < self.figures.max_num_seqs:
            call_id, call = next(iter(self._waiting.items()))
            if self._blocks(call.to_compute) > self._free:
                break
            del self._waiting[call_id]
            self._running[call_id] = self._prefills[call_id] = call
            prefilled += self._take_chunk(call, budget - prefilled)
        return prefilled

    def _prefill(self, call: _Call, budget: int, at: float) -> int:
        """Go on with a prompt that has begun; it is the last that started, so if there are no blocks for it, it loses its own."""
        wanted = self._blocks(call.computed + min(call.to_compute - call.computed, budget)) - call.blocks
        if wanted > self._free:
            self._preempt(call, at)
            return 0
        return self._take_chunk(call, budget)

    def _take_chunk(self, call: _Call, budget: int) -> int:
        call.chunk = min(call.to_compute - call.computed, budget)
        blocks = self._blocks(call.computed + call.chunk)
        self._free -= blocks - call.blocks
        call.blocks = blocks
        return call.chunk

    def _complete(self, steps: int, at: float) -> None:
        """So many of the steps under way are done. The blocks of the first were given when it began."""
        if steps > 1:
            self._free -= self._blocks_of(steps - 1)
        self._step += steps
        decoded = self._decoding * steps
        self._context += decoded
        self.generation_tokens += decoded
        while self._ends and self._next_end() == self._step:
            self._finish(heappop(self._ends)[2], at)
        if not self._prefills:
            return
        for call in list(self._prefills.values()):
            call.computed += call.chunk
            call.chunk = 0
            if call.computed == call.to_compute:
                self._decode(call, at)

    def _blocks_of(self, steps: int) -> int:
        """What so many steps after the present one need."""
        needing, size, first = self._needing, self.figures.block_tokens, self._step + 1
        cycles, rest = divmod(steps, size)
        needed = cycles * self._decoding
        for step in range(first, first + rest):
            needed += needing[-step % size]
        return needed

    def _decode(self, call: _Call, at: float) -> None:
        """The prompt is computed, and with it has come a token."""
        call.produced += 1
        self.generation_tokens += 1
        if call.produced == 1:
            self.prompt_tokens += call.prompt_tokens
            self._events.append(Event(at, Happening.FIRST, call.id, 1))
        if call.produced == call.output_tokens:
            self._finish(call, at)
            return
        del self._prefills[call.id]
        call.decodes, call.offset = True, call.produced - self._step
        self._count(call, 1)
        self._entered += 1
        heappush(self._ends, (self._step + call.output_tokens - call.produced, self._entered, call))

    def _next_end(self) -> int:
        """The step at whose end the first of the decoding calls finishes."""
        ends = self._ends
        while ends and not self._is_current(*ends[0]):
            heappop(ends)
        return ends[0][0] if ends else _NEVER

    @staticmethod
    def _is_current(step: int, _: int, call: _Call) -> bool:
        """Whether it still decodes, and has not been set back since."""
        return call.decodes and call.offset + step == call.output_tokens

    def _finish(self, call: _Call, at: float) -> None:
        self._events.append(Event(at, Happening.FINISHED, call.id, call.output_tokens))
        del self._calls[call.id]
        self._leave(call, blocks=self._blocks(self._computed(call)))

    def _preempt(self, call: _Call, at: float) -> None:
        self.preemptions += 1
        produced = call.offset + self._step if call.decodes else call.produced
        self._leave(call, blocks=self._blocks(self._computed(call)))
        call.produced, call.computed, call.chunk, call.blocks = produced, 0, 0, 0
        self._waiting[call.id] = call
        self._waiting.move_to_end(call.id, last=False)
        self._events.append(Event(at, Happening.PREEMPTED, call.id, produced))

    def _leave(self, call: _Call, *, blocks: int) -> None:
        """It runs no more, and its blocks are free."""
        del self._running[call.id]
        self._free += blocks
        if call.decodes:
            self._count(call, -1)
            call.decodes = False
        else:
            del self._prefills[call.id]

    def _count(self, call: _Call, one: int) -> None:
        """Into (1) or out of (-1) what is known of the decoding calls together."""
        self._decoding += one
        self._context += one * self._computed(call)
        self._needing[(call.prompt_tokens - 1 + call.offset) % self.figures.block_tokens] += one

    def _computed(self, call: _Call) -> int:
        """Its tokens in the KV cache: of a decoding call all but the newest."""
        return call.prompt_tokens + call.offset + self._step - 1 if call.decodes else call.computed

    def _blocks_during_step(self, call: _Call) -> int:
        """What it holds while a step is under way, whose token already has its place."""
        return self._blocks(self._computed(call) + 1) if call.decodes else call.blocks

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.figures.block_tokens)
