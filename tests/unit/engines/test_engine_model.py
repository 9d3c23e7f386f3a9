"""The engine's model: what it is asked, and that it does what the plain one does."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engines.model import CallTooLong, EngineFigures, EngineModel, Event, Happening
from tests.unit.engines.plain_engine import PlainEngine

FIRST, FINISHED, PREEMPTED = Happening.FIRST, Happening.FINISHED, Happening.PREEMPTED
FIGURES = EngineFigures(
    1.0, 0.01, 0.1, max_num_seqs=4, max_num_batched_tokens=100, max_model_len=200, kv_blocks=20, block_tokens=10
)


def run(model: EngineModel) -> list[Event]:
    """Until it has nothing to do."""
    events: list[Event] = []
    while (at := model.next_event_at()) is not None:
        events += model.advance(at)
    return events


def at_steps(events: list[Event]) -> list[tuple[float, str, str]]:
    return [(round(event.at, 6), event.what.value, event.call_id) for event in events]


def test_call_takes_a_prefill_and_a_step_for_each_further_token() -> None:
    model = EngineModel(FIGURES)
    model.add("a", 50, 3, now=10.0)
    assert model.step_ends_at() == pytest.approx(11.5)
    assert at_steps(run(model)) == [(11.5, "first", "a"), (13.7, "finished", "a")]
    assert (model.running, model.waiting, model.kv_usage) == (0, 0, 0.0)
    assert (model.prompt_tokens, model.generation_tokens) == (50, 3)
    assert model.step_ends_at() is None


def test_call_that_comes_during_a_step_joins_the_next() -> None:
    model = EngineModel(FIGURES)
    model.add("a", 50, 9, now=0.0)
    model.add("b", 50, 1, now=0.1)
    assert (model.running, model.waiting) == (1, 1)
    assert at_steps(model.advance(2.0)) == [(1.5, "first", "a")]
    assert at_steps(model.advance(4.0)) == [(3.1, "first", "b"), (3.1, "finished", "b")]


def test_long_prompt_takes_as_many_steps_as_its_chunks_and_others_go_on_meanwhile() -> None:
    model = EngineModel(FIGURES)
    model.add("a", 10, 5, now=0.0)
    model.add("b", 150, 2, now=0.0)
    model.advance(1.1)
    assert model.step_ends_at() == pytest.approx(1.1 + 1.0 + 99 * 0.01 + 0.1)  # one token of the budget is the decoding call's
    assert model.advance(3.2) == []
    assert model.tokens_of("a") == 2
    assert at_steps(model.advance(4.9)) == [(4.8, "first", "b")]


def test_no_more_run_than_there_are_seats() -> None:
    model = EngineModel(FIGURES)
    for number in range(6):
        model.add(str(number), 10, 2, now=0.0)
    model.advance(1.1)
    assert (model.running, model.waiting) == (4, 2)
    assert [event.call_id for event in run(model) if event.what is FINISHED] == list("012345")


def test_prompt_for_which_there_are_no_blocks_waits_and_those_behind_it_too() -> None:
    model = EngineModel(FIGURES)
    model.add("a", 95, 50, now=0.0)
    model.add("b", 120, 2, now=0.0)
    model.add("c", 10, 2, now=0.0)
    model.advance(5.0)
    assert (model.running, model.waiting) == (1, 2)
    assert model.next_event_at() == pytest.approx(1.95 + 49 * 1.1), "nothing changes before the first has finished"


def test_full_cache_costs_the_newest_its_blocks_and_it_goes_on_from_the_tokens_it_had() -> None:
    model = EngineModel(FIGURES)
    model.add("a", 90, 60, now=0.0)
    model.add("b", 80, 60, now=0.0)
    events = run(model)
    assert [(event.what, event.call_id) for event in events] == [
        (FIRST, "a"),
        (FIRST, "b"),
        (PREEMPTED, "b"),
        (FINISHED, "a"),
        (FINISHED, "b"),
    ]
    assert events[2].tokens > 1
    assert model.preemptions == 1
    assert (model.prompt_tokens, model.generation_tokens) == (170, 120)


def test_steps_grow_with_the_context() -> None:
    model = EngineModel(EngineFigures(1.0, 0.0, 0.0, context_token_s=0.5))
    model.add("a", 4, 4, now=0.0)
    events = run(model)
    assert [event.at for event in events] == [1.0, 1.0 + 3 * 1.0 + 0.5 * (4 + 5 + 6)]


def test_tokens_are_counted_in_the_middle_of_a_run() -> None:
    model = EngineModel(FIGURES)
    model.add("a", 50, 100, now=0.0)
    assert model.tokens_of("a") == 0
    model.advance(1.5 + 10 * 1.1 + 0.5)
    assert model.tokens_of("a") == 11
    assert model.step_ends_at() == pytest.approx(1.5 + 11 * 1.1)
    assert model.kv_usage == pytest.approx(7 / 20)  # 60 tokens, and a place for the one of this step


def test_aborted_call_frees_its_blocks_and_its_seat_at_once() -> None:
    model = EngineModel(FIGURES)
    model.add("a", 150, 40, now=0.0)
    model.add("b", 100, 2, now=0.5)
    model.advance(5.0)
    assert (model.running, model.waiting) == (1, 1)
    model.abort("a", 5.0)
    assert (model.running, model.waiting, model.kv_usage) == (0, 1, 0.0)
    began = model.step_ends_at()
    assert began is not None
    assert began > 5.0, "the step under way takes as long as it would have"
    assert at_steps(run(model)[:1]) == [(round(began + 2.0, 6), "first", "b")]
    model.abort("a", 100.0)
    model.abort("never was", 100.0)


def test_first_of_those_that_wait_is_aborted_and_the_next_may_start() -> None:
    model = EngineModel(FIGURES)
    model.add("a", 95, 50, now=0.0)
    model.add("b", 120, 2, now=0.0)
    model.add("c", 10, 2, now=0.0)
    model.advance(5.0)
    model.abort("b", 5.0)
    assert model.running == 1
    assert at_steps(model.advance(7.0)) == [(6.45, "first", "c")], "1.95 + 3 * 1.1 is the next step's beginning, which takes 1.2"
    assert model.running == 2


def test_what_cannot_be_is_refused() -> None:
    model = EngineModel(FIGURES)
    with pytest.raises(CallTooLong):
        model.add("a", 150, 51, now=0.0)
    model.add("a", 1, 1, now=0.0)
    with pytest.raises(ValueError, match="in use"):
        model.add("a", 1, 1, now=0.0)
    with pytest.raises(ValueError, match="no size"):
        model.add("b", 1, 0, now=0.0)
    with pytest.raises(KeyError):
        model.tokens_of("b")
    with pytest.raises(ValueError, match="max_model_len"):
        EngineFigures(1.0, 0.0, 0.0, kv_blocks=1)
    with pytest.raises(ValueError, match="max_num_batched_tokens"):
        EngineFigures(1.0, 0.0, 0.0, max_num_seqs=9000)
    with pytest.raises(ValueError, match="no time"):
        EngineFigures(0.0, 0.0, 0.0)


def test_engine_that_is_scaled_does_the_same_in_less_time() -> None:
    slow, fast = EngineModel(FIGURES), EngineModel(FIGURES.scaled(10))
    for model in (slow, fast):
        for number in range(10):
            model.add(str(number), 50 + number, 20 + number, now=0.0)
    events, faster = run(slow), run(fast)
    assert [event.what for event in events] == [event.what for event in faster]
    assert [event.at for event in faster] == pytest.approx([event.at / 10 for event in events])


@pytest.mark.parametrize(("prompt", "output"), [(200, 100), (1000, 30), (30, 300)])
def test_capacity_is_what_a_full_engine_completes(prompt: int, output: int) -> None:
    figures = EngineFigures(0.01, 0.00002, 0.00005, 1e-8, max_num_seqs=64)
    model = EngineModel(figures)
    for number in range(2000):
        model.add(str(number), prompt, output, now=0.0)
    ends = [event.at for event in run(model) if event.what is FINISHED]
    assert 1600 / (ends[1799] - ends[199]) == pytest.approx(figures.calls_per_s(prompt, output), rel=0.05)


calls = st.lists(
    st.tuples(
        st.floats(0, 30, allow_nan=False).map(lambda at: round(at, 3)),  # when it comes
        st.integers(1, 60),  # prompt tokens
        st.integers(1, 40),  # tokens of the answer
        st.none() | st.floats(0, 40).map(lambda after: round(after, 3)),  # how long after that its client leaves
    ),
    max_size=25,
)
engines = st.builds(
    EngineFigures,
    step_s=st.just(0.5),
    prefill_token_s=st.sampled_from([0.0, 0.01, 0.05]),
    decode_call_s=st.sampled_from([0.0, 0.03]),
    context_token_s=st.sampled_from([0.0, 0.0007]),
    max_num_seqs=st.integers(1, 5),
    max_num_batched_tokens=st.integers(5, 50),
    max_model_len=st.just(100),
    kv_blocks=st.integers(25, 60),
    block_tokens=st.just(4),
)


NEARLY = 1e-9  # seconds: nearer to the end of a step than that, rounding decides whether it is over


@given(engines, calls, st.lists(st.floats(0, 200), max_size=5))
@settings(max_examples=300, deadline=None)
def test_it_does_what_the_plain_engine_does(
    figures: EngineFigures, asked: list[tuple[float, int, int, float | None]], looks: list[float]
) -> None:
    """To the step, with calls that come and leave at any time, whatever is asked in between, and no block is ever lost."""
    model, plain = EngineModel(figures), PlainEngine(figures)
    comings = [(at, 0, str(number), prompt, output) for number, (at, prompt, output, _) in enumerate(asked)]
    leavings = [(at + after, 1, str(number), 0, 0) for number, (at, _, _, after) in enumerate(asked) if after is not None]
    looking = [(at, 2, "", 0, 0) for at in looks]
    told: list[Event] = []
    ends: float | None = None
    for at, kind, call_id, prompt, output in sorted([*comings, *leavings, *looking]):
        while ends is not None and ends <= at:
            plain.complete(ends)
            ends = plain.step(ends)
        assume(ends is None or ends > at + NEARLY)
        if kind == 0:
            plain.add(call_id, prompt, output)
            model.add(call_id, prompt, output, at)
            ends = plain.step(at) if ends is None else ends
        elif kind == 1:
            plain.abort(call_id)
            model.abort(call_id, at)
        told += model.advance(at)
        assert model.step_ends_at() == (None if ends is None else pytest.approx(ends))
        assert (model.running, model.waiting) == (len(plain.running), len(plain.waiting))
        assert model.kv_usage == pytest.approx(1 - plain.free / figures.kv_blocks)
        for one in (*plain.running, *plain.waiting):
            assert model.tokens_of(one.id) == one.produced
    while ends is not None:
        plain.complete(ends)
        ends = plain.step(ends)
    told += run(model)
    assert [event.at for event in told] == pytest.approx([event.at for event in plain.events])
    assert by_step(told) == by_step(plain.events)
    assert (model.running, model.waiting, model.kv_usage) == (0, 0, 0.0)


def by_step(events: list[Event]) -> list[tuple[float, str, str, int]]:
    """In an order of their own where several happen at once."""
    return sorted((round(event.at, 6), event.what.value, event.call_id, event.tokens) for event in events)


def test_tokens_are_those_of_the_time_that_was_reached() -> None:
    model = EngineModel(FIGURES)
    model.add("a", 10, 20, 0.0)
    (first,) = model.advance(1.1)
    assert first.what is FIRST
    model.reach(6.0)
    assert model.tokens_of("a") == 5
    assert model.advance(6.0) == []
    model.reach(100.0)
    assert [event.what for event in model.advance(100.0)] == [FINISHED]
