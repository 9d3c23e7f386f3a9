"""Parts of accelerators: who has room, and what Ray and vLLM are told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.placement import Accelerators, grant, have_room, without_room
from serving.spec import EngineSpec, ModelSpec, read_spec

DEMO = read_spec("daemun-demo")
SIMULATED = Accelerators(1, 2.0)


def model(name: str, accelerator: float = 1.0, **extra: int) -> ModelSpec:
    told = DEMO.model_dump() | {"id": name, "accelerator": accelerator, "engine": EngineSpec(extra_args=dict(extra))}
    return ModelSpec.model_validate(told)


def test_two_parts_of_one_accelerator_have_room_and_a_third_waits() -> None:
    wanted = [(model("a", 0.5), 1), (model("b", 0.4), 1), (model("c", 0.3), 1)]
    room = have_room(wanted, SIMULATED)
    assert room.fits == {"a": 1, "b": 1, "c": 0}
    assert without_room(wanted, room, SIMULATED) == [
        "c: 1 of its 1 replicas must wait: each needs 0.3 of an accelerator, and 0.10 of 1 is left"
    ]


def test_what_needs_several_accelerators_takes_them_whole() -> None:
    wide = model("wide", tensor_parallel_size=2)
    room = have_room([(wide, 2)], Accelerators(3))
    assert room.fits == {"wide": 1}
    assert without_room([(wide, 2)], room, Accelerators(3)) == [
        "wide: 1 of its 2 replicas must wait: each needs 2 accelerators, and 1.00 of 3 is left"
    ]
    assert grant(wide, Accelerators(3)).actor_options == {"num_gpus": 2}
    with pytest.raises(ValueError, match="takes them whole"):
        model("wide", 0.5, tensor_parallel_size=2)


def test_a_part_of_a_gpu_is_rays_number_and_vllms_share_of_memory() -> None:
    given_ = grant(model("a", 0.5), Accelerators(1))
    assert given_.actor_options == {"num_gpus": 0.5}
    assert given_.engine_args == {"gpu_memory_utilization": 0.46}  # half of what vLLM takes of a whole one


def test_a_whole_gpu_is_left_to_vllms_own_default() -> None:
    assert grant(model("a"), Accelerators(1)).engine_args == {}


def test_a_part_of_a_simulated_one_is_a_resource_and_a_cache_of_that_size() -> None:
    given_ = grant(model("a", 0.25), SIMULATED)
    assert given_.actor_options == {"resources": {"accelerator": 0.25}}
    assert given_.engine_args == {"kv_cache_memory_bytes": 2**29}


def test_without_accelerators_the_spec_alone_decides() -> None:
    nothing = grant(model("a", 0.5), None)
    assert (nothing.actor_options, nothing.engine_args) == ({}, {})


@pytest.mark.parametrize("part", [0.0, 1.5, 0.005, -0.5])
def test_parts_that_make_no_sense_are_refused(part: float) -> None:
    with pytest.raises(ValueError, match="accelerator"):
        model("a", part)


@given(
    st.lists(st.tuples(st.integers(1, 100), st.integers(0, 4)), min_size=1, max_size=6),
    st.integers(1, 4),
)
def test_no_accelerator_is_given_out_twice(parts: list[tuple[int, int]], count: int) -> None:
    """Neither Ray's numbers nor vLLM's memory, summed up, are more than there is."""
    accelerators = Accelerators(count, 2.0)
    wanted = [(model(f"m{number}", part / 100), replicas) for number, (part, replicas) in enumerate(parts)]
    fits = have_room(wanted, accelerators).fits
    assert all(0 <= fits[spec.id] <= replicas for spec, replicas in wanted)
    assert sum(round(100 * spec.accelerator) * fits[spec.id] for spec, _ in wanted) <= 100 * count
    memory = [grant(spec, accelerators).engine_args["kv_cache_memory_bytes"] * fits[spec.id] for spec, _ in wanted]
    assert sum(memory) <= count * 2**31


@given(st.lists(st.integers(5, 100), min_size=1, max_size=4), st.lists(st.integers(5, 100), min_size=1, max_size=4))
def test_what_has_room_keeps_it_whoever_comes(there: list[int], new: list[int]) -> None:
    accelerators = Accelerators(1, 2.0)
    first = [(model(f"m{number}", part / 100), 1) for number, part in enumerate(there)]
    more = [(model(f"new{number}", part / 100), 1) for number, part in enumerate(new)]
    before = have_room(first, accelerators)
    after = have_room([*more, *first], accelerators, before.state)
    assert all(after.fits[spec.id] >= before.fits[spec.id] for spec, _ in first)
