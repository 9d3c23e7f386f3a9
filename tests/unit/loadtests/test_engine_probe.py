"""What is read off the pieces of a stream, also where the machine that reads them stood still."""

from __future__ import annotations

import pytest

from loadtests.engine_fit import Size
from loadtests.engine_probe import Arrivals, Probe, ProbeFailed

EVEN = Arrivals(0.0, [(1.0 + 0.1 * tokens, tokens) for tokens in range(1, 21)])
STALLED = Arrivals(59722.293, [(59722.316, 18), (59722.317, 20)])


class Scripted(Probe):
    """Its streams are the given ones, in this order."""

    def __init__(self, *streams: Arrivals) -> None:
        self._streams = list(streams)

    async def ask(self, size: Size) -> Arrivals:
        return self._streams.pop(0)


def test_steady_time_is_that_between_two_tokens_of_the_middle() -> None:
    assert EVEN.steady_s() == pytest.approx(0.1)


def test_stream_that_came_at_one_stroke_says_nothing() -> None:
    assert STALLED.steady_s() is None


async def test_step_is_taken_from_the_streams_that_say_something() -> None:
    step = await Scripted(STALLED, EVEN, STALLED).decode_step(3, Size(50, 20))
    assert step.seconds == pytest.approx(0.1)
    assert (step.calls, step.context_tokens) == (3, 180.0)


async def test_step_is_measured_again_where_all_streams_came_at_one_stroke() -> None:
    step = await Scripted(STALLED, STALLED, EVEN, EVEN).decode_step(2, Size(50, 20))
    assert step.seconds == pytest.approx(0.1)


async def test_machine_that_always_stands_still_is_said() -> None:
    with pytest.raises(ProbeFailed, match="stands still too often"):
        await Scripted(*[STALLED] * 6).decode_step(2, Size(50, 20))
