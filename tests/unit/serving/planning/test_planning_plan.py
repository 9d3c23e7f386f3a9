"""Plans: what fits, how, what would help, and what cannot be answered."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.card import QuantFormat
from serving.planning.gpu import parse_gpus
from serving.planning.memory import Layout, sequence_kv_bytes
from serving.planning.plan import Question, layouts, make_plan, room_for, why_not
from serving.shape import NotKnown, Shape
from serving.spec import known_models, read_spec
from tests.unit.serving.test_serving_shape import shape


def question(model: str, gpus: str, quant: QuantFormat = "bf16", context: int = 8192) -> Question:
    found = read_spec(model).shape
    assert found is not None
    return Question(found, parse_gpus(gpus), quant, context)


def test_as_many_replicas_as_can_be_are_made() -> None:
    plan = make_plan(question("exaone-4.0-32b", "RTX4090:8", "int4"))
    assert plan.chosen is not None
    assert plan.chosen.layout == Layout(1, 1)
    assert plan.replicas == 8


def test_weights_too_large_for_one_gpu_are_spread_over_several() -> None:
    plan = make_plan(question("exaone-4.0-32b", "RTX4090:4"))
    assert plan.chosen is not None
    assert plan.chosen.layout == Layout(4, 1)
    assert plan.replicas == 1


def test_memory_of_a_plan_adds_up() -> None:
    asked = question("exaone-4.0-32b", "RTX4090:4")
    room = room_for(asked, Layout(4, 1))
    assert room.weights == pytest.approx(32e9 * 2 / 4)
    assert room.sequence == pytest.approx(sequence_kv_bytes(asked.shape, 8192) / 4)
    assert room.calls is not None
    assert room.sequence is not None
    assert room.calls * room.sequence <= room.cache < (room.calls + 1) * room.sequence


def test_plan_that_cannot_fit_says_what_is_too_much_and_what_would_do() -> None:
    plan = make_plan(question("exaone-4.0-32b", "RTX4090:1"))
    assert plan.chosen is None
    assert plan.remedies == ("--gpu RTX4090:4", "--quant int4")
    assert "weights" in (why_not(plan.question) or "")


def test_context_too_long_for_the_room_is_said_with_the_longest_that_fits() -> None:
    plan = make_plan(question("llama-varco-8b", "RTX4090:1", context=131072))
    assert plan.chosen is None
    longest = next(int(remedy.split()[1]) for remedy in plan.remedies if remedy.startswith("--context"))
    assert make_plan(question("llama-varco-8b", "RTX4090:1", context=longest)).chosen is not None
    assert make_plan(question("llama-varco-8b", "RTX4090:1", context=longest + 1)).chosen is None


def test_unknown_widths_leave_the_weights_answered_and_name_the_rest() -> None:
    plan = make_plan(question("kanana-2-30b-a3b", "H100:1"))
    assert plan.chosen is not None
    assert plan.chosen.calls is None
    assert any("cache" in answer and "latent.kv_rank is unknown" in answer for answer in plan.unanswered)


def test_unknown_embeddings_make_narrow_weights_unanswerable() -> None:
    with pytest.raises(NotKnown, match=r"hidden_size|tied_embeddings"):
        make_plan(question("kanana-2-30b-a3b", "H100:1", "int4"))


def test_tensor_parallel_must_divide_the_heads() -> None:
    tensors = {layout.tensor for layout in layouts(shape(heads=6, kv_heads=2), 8)}
    assert tensors == {1, 2}


def test_stage_has_at_least_one_layer() -> None:
    assert max(layout.pipeline for layout in layouts(shape(layers=3), 8)) == 3


def _askable() -> list[Shape]:
    found = [read_spec(model).shape for model in known_models()]
    return [
        one
        for one in found
        if one is not None and one.kv_heads != "unknown" and one.latent != "unknown" and one.vocabulary != "unknown"
    ]


@settings(deadline=None)
@given(
    st.sampled_from(_askable()),
    st.sampled_from(["RTX4090", "A100-80", "H200"]),
    st.integers(1, 16),
    st.sampled_from([1024, 32768]),
    st.sampled_from(["bf16", "fp8", "int4"]),
)
def test_whatever_is_chosen_fits_and_no_layout_gives_more_replicas(
    asked: Shape, kind: str, count: int, context: int, quant: QuantFormat
) -> None:
    plan = make_plan(Question(asked, parse_gpus(f"{kind}:{count}"), quant, context))
    if plan.chosen is None:
        assert why_not(plan.question) is not None
        return
    assert plan.chosen.weights + (plan.chosen.step or 0) + (plan.chosen.sequence or 0) <= plan.chosen.usable
    assert plan.replicas * plan.chosen.layout.gpus <= count
    assert all(not room.fits or count // room.layout.gpus <= plan.replicas for room in plan.rooms)


@given(st.sampled_from(_askable()), st.integers(1, 15))
def test_another_gpu_never_makes_a_plan_impossible(asked: Shape, count: int) -> None:
    few, more = (make_plan(Question(asked, parse_gpus(f"H100:{number}"), "bf16", 4096)) for number in (count, count + 1))
    assert few.chosen is None or more.chosen is not None
    for one, other in itertools.pairwise((few, more)):
        assert one.replicas <= other.replicas
