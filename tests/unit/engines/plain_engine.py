"""The same engine as `engines.model`, written as plainly as can be: every sequence, every step, nothing clever."""

from __future__ import annotations

from dataclasses import dataclass

from engines.model import EngineFigures, Event, Happening


@dataclass
class Sequence:
    id: str
    prompt: int
    output: int
    produced: int = 0
    computed: int = 0
    chunk: int = 0
    blocks: int = 0
    decodes: bool = False


class PlainEngine:
    """Stepped by hand: `step` begins a step, and returns when it ends; `complete` is its end."""

    def __init__(self, figures: EngineFigures) -> None:
        self.figures = figures
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.events: list[Event] = []

    @property
    def free(self) -> int:
        return self.figures.kv_blocks - sum(one.blocks for one in self.running)

    def add(self, call_id: str, prompt: int, output: int) -> None:
        self.waiting.append(Sequence(call_id, prompt, output))

    def abort(self, call_id: str) -> None:
        self.waiting = [one for one in self.waiting if one.id != call_id]
        self.running = [one for one in self.running if one.id != call_id]

    def step(self, at: float) -> float | None:
        if not self.waiting and not self.running:
            return None
        figures, budget, preempted = self.figures, self.figures.max_num_batched_tokens, False
        index = 0
        while index < len(self.running):
            one = self.running[index]
            one.chunk = min(one.prompt + one.produced - one.computed, budget)
            while self._blocks(one.computed + one.chunk) - one.blocks > self.free:
                self._preempt(self.running[-1], at)
                preempted = True
                if one not in self.running:
                    break
            else:
                one.blocks = self._blocks(one.computed + one.chunk)
                budget -= one.chunk
            index += 1
        while self.waiting and budget and not preempted and len(self.running) < figures.max_num_seqs:
            one = self.waiting[0]
            if self._blocks(one.prompt + one.produced) > self.free:
                break
            self.running.append(self.waiting.pop(0))
            one.chunk = min(one.prompt + one.produced, budget)
            one.blocks = self._blocks(one.chunk)
            budget -= one.chunk
        return at + self._step_s()

    def complete(self, at: float) -> None:
        for decodes in (True, False):  # those that decode are told of first
            for one in list(self.running):
                if one.chunk and one.decodes is decodes:
                    self._advance(one, at)

    def tokens_of(self, call_id: str) -> int:
        return next(one.produced for one in (*self.waiting, *self.running) if one.id == call_id)

    def _advance(self, one: Sequence, at: float) -> None:
        one.computed += one.chunk
        one.chunk = 0
        if one.computed < one.prompt + one.produced:
            return
        one.produced += 1
        one.decodes = True
        if one.produced == 1:
            self.events.append(Event(at, Happening.FIRST, one.id, 1))
        if one.produced == one.output:
            self.events.append(Event(at, Happening.FINISHED, one.id, one.output))
            self.running.remove(one)

    def _preempt(self, one: Sequence, at: float) -> None:
        self.running.remove(one)
        one.computed = one.chunk = one.blocks = 0
        one.decodes = False
        self.waiting.insert(0, one)
        self.events.append(Event(at, Happening.PREEMPTED, one.id, one.produced))

    def _step_s(self) -> float:
        figures = self.figures
        decoding = [one for one in self.running if one.decodes]
        prefilled = sum(one.chunk for one in self.running if not one.decodes)
        context = sum(one.computed for one in decoding)
        decode_s = len(decoding) * figures.decode_call_s + context * figures.context_token_s
        return figures.step_s + prefilled * figures.prefill_token_s + decode_s

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.figures.block_tokens)
