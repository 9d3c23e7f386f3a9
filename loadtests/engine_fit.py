"""From measured times to an engine's figures, and from figures to times that can be compared with measured ones. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from engines.model import EngineFigures, EngineModel, Event, Happening


@dataclass(frozen=True, slots=True)
class Size:
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Timed:
    """A call's times: to its first token, then between two on average (0 for a call of one token), and when it ended."""

    first_s: float
    between_s: float
    ended_at: float


@dataclass(frozen=True, slots=True)
class DecodeStep:
    """How long a step took in which so many calls decoded, with so many context tokens together."""

    seconds: float
    calls: int
    context_tokens: float


def least_squares(rows: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """The factors, none below 0, with which the rows come nearest to the values, relatively."""
    wanted = list(range(len(rows[0])))
    while True:
        weighted = [[row[index] / value for index in wanted] for row, value in zip(rows, values, strict=True)]
        factors = _solve(weighted)
        lowest = min(range(len(wanted)), key=factors.__getitem__)
        if factors[lowest] >= 0:
            found = dict(zip(wanted, factors, strict=True))
            return [found.get(index, 0.0) for index in range(len(rows[0]))]
        del wanted[lowest]


def decode_times(steps: Sequence[DecodeStep]) -> tuple[float, float, float]:
    """step_s, decode_call_s, context_token_s."""
    rows = [(1.0, float(step.calls), step.context_tokens) for step in steps]
    step_s, call_s, token_s = least_squares(rows, [step.seconds for step in steps])
    return step_s, call_s, token_s


def prefill_times(firsts: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """What a first token takes however short the prompt is, and what each token of the prompt adds."""
    alone_s, token_s = least_squares([(1.0, float(tokens)) for tokens, _ in firsts], [seconds for _, seconds in firsts])
    return alone_s, token_s


def predicted(figures: EngineFigures, sizes: Sequence[Size], clients: int) -> list[Timed]:
    """These calls by so many clients, each of whom takes the next one as soon as its last has ended."""
    model = EngineModel(figures)
    asked_at: dict[str, float] = {}
    firsts: dict[str, float] = {}
    timed: dict[str, Timed] = {}
    joining: list[tuple[float, int]] = []
    for number in range(min(clients, len(sizes))):
        asked_at[str(number)] = 0.0
        heappush(joining, (figures.front_s, number))
    while joining or model.next_event_at() is not None:
        at = model.next_event_at()
        if joining and (at is None or joining[0][0] <= at):
            at, number = heappop(joining)
            model.add(str(number), sizes[number].prompt_tokens, sizes[number].output_tokens, at)
        for event in model.advance(at or 0.0):
            if event.what is Happening.FIRST:
                firsts[event.call_id] = event.at
            elif event.what is Happening.FINISHED:
                timed[event.call_id] = _timed(event, asked_at[event.call_id], firsts[event.call_id])
                if len(asked_at) < len(sizes):
                    heappush(joining, (event.at + figures.front_s, len(asked_at)))
                    asked_at[str(len(asked_at))] = event.at
    return [timed[str(number)] for number in range(len(sizes))]


def _timed(last: Event, asked_at: float, first_at: float) -> Timed:
    between_s = (last.at - first_at) / (last.tokens - 1) if last.tokens > 1 else 0.0
    return Timed(first_at - asked_at, between_s, last.at)


def _solve(rows: list[list[float]]) -> list[float]:
    """The factors that bring each row's sum nearest to 1: the normal equations, by elimination."""
    size = len(rows[0])
    left = [[sum(row[i] * row[j] for row in rows) for j in range(size)] for i in range(size)]
    right = [sum(row[i] for row in rows) for i in range(size)]
    for pivot in range(size):
        for below in range(pivot + 1, size):
            share = left[below][pivot] / left[pivot][pivot]
            left[below] = [value - share * above for value, above in zip(left[below], left[pivot], strict=True)]
            right[below] -= share * right[pivot]
    factors = [0.0] * size
    for row in reversed(range(size)):
        rest = sum(left[row][column] * factors[column] for column in range(row + 1, size))
        factors[row] = (right[row] - rest) / left[row][row]
    return factors
