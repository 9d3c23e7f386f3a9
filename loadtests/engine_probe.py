"""Asks a real engine for streams of exact sizes and notes when each token came. Prompts are random ids, so none is in a cache."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp

from loadtests.engine_fit import DecodeStep, Size, Timed

_TOKENS = re.compile(rb'"completion_tokens"\s*:\s*(\d+)')
_IDS = range(100, 2900)
_RAMP = 0.2  # the share of a stream, at its beginning and its end, in which others may still prefill or have ended already

_TRIES = 3


class ProbeFailed(Exception):
    """The server did not answer as it should; the message says how."""


@dataclass(slots=True)
class Arrivals:
    """When the answer's tokens came, by `time.perf_counter`: how many there were at each piece."""

    asked_at: float
    pieces: list[tuple[float, int]] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return self.pieces[-1][1] if self.pieces else 0

    def timed(self, began_at: float) -> Timed:
        (first_at, first), (last_at, last) = self.pieces[0], self.pieces[-1]
        between_s = (last_at - first_at) / (last - first) if last > first else 0.0
        return Timed(first_at - self.asked_at, between_s, last_at - began_at)

    def steady_s(self) -> float | None:
        """Between two tokens, in the middle of the stream; None where that came at one stroke: this machine stood still."""
        low, high = self.tokens * _RAMP, self.tokens * (1 - _RAMP)
        middle = [piece for piece in self.pieces if low <= piece[1] <= high]
        if len(middle) < 2:
            return None
        (begin, first), (end, last) = middle[0], middle[-1]
        return (end - begin) / (last - first)


class Probe:
    """One model of one server. Use as `async with`."""

    def __init__(self, url: str, model: str, key: str, seed: int) -> None:
        self._url, self._model, self._key = url, model, key
        self._chance = random.Random(seed)  # noqa: S311 - a seed is wanted, not a secret

    async def __aenter__(self) -> Probe:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), headers={"Authorization": f"Bearer {self._key}"}
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ask(self, size: Size) -> Arrivals:
        """Raises ProbeFailed."""
        body = {
            "model": self._model,
            "prompt": self._chance.choices(_IDS, k=size.prompt_tokens),
            "max_tokens": size.output_tokens,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
        arrivals = Arrivals(time.perf_counter())
        async with self._session.post(f"{self._url}/v1/completions", json=body) as answer:
            if answer.status != 200:
                raise ProbeFailed(f"the server answers {answer.status}: {(await answer.text())[:300]}")
            async for piece in answer.content.iter_any():
                counts = _TOKENS.findall(piece)
                if counts and int(counts[-1]) > arrivals.tokens:
                    arrivals.pieces.append((time.perf_counter(), int(counts[-1])))
        if arrivals.tokens != size.output_tokens:
            raise ProbeFailed(f"{size.output_tokens} tokens were asked for, {arrivals.tokens} came")
        return arrivals

    async def first_s(self, prompt_tokens: int) -> float:
        """To the first token of a call that has the engine to itself."""
        arrivals = await self.ask(Size(prompt_tokens, 1))
        return arrivals.pieces[0][0] - arrivals.asked_at

    async def decode_step(self, calls: int, size: Size) -> DecodeStep:
        """So many equal calls at once, in the middle of them all. Raises ProbeFailed."""
        for _ in range(_TRIES):
            streams = await asyncio.gather(*(self.ask(size) for _ in range(calls)))
            steady = sorted(step_s for stream in streams if (step_s := stream.steady_s()) is not None)
            if steady:
                context = size.prompt_tokens + size.output_tokens / 2
                return DecodeStep(steady[len(steady) // 2], calls, calls * context)
        raise ProbeFailed(
            f"the tokens of {calls} calls came all at once, {_TRIES} times: this machine stands still too often to measure; "
            "try again when it has nothing else to do"
        )

    async def closed_loop(self, sizes: Sequence[Size], clients: int) -> list[Timed]:
        """These calls by so many clients, each of whom takes the next one as soon as its last has ended."""
        timed: dict[int, Timed] = {}
        left = iter(enumerate(sizes))
        began_at = time.perf_counter()

        async def client() -> None:
            for number, size in left:
                timed[number] = (await self.ask(size)).timed(began_at)

        await asyncio.gather(*(client() for _ in range(clients)))
        return [timed[number] for number in range(len(sizes))]
