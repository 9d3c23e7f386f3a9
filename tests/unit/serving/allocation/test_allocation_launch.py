"""What a plan becomes in Ray's and vLLM's words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.allocation import Grade, Kind, Replica, Shape
from serving.allocation.launch import actor_options, engine_options, pinned_options

H100 = Kind("H100", 81_559, 4_096)
QUARTER = Shape("H100", 1, 25, 19_000, 900.0)
PAIR = Shape("H100", 2, 100, H100.usable_mib, 1_500.0)


def test_part_of_a_gpu() -> None:
    assert actor_options(QUARTER) == {"num_gpus": 0.25, "resources": {"accelerator_type:H100": 0.001}}
    assert engine_options(QUARTER, H100) == {"tensor_parallel_size": 1, "gpu_memory_utilization": 0.2329}


def test_several_gpus_of_one_node() -> None:
    replica = Replica("m#1", "m", "lg", "h100-7", (2, 3), PAIR, Grade.SHARE)
    assert pinned_options(replica) == {"num_gpus": 2, "resources": {"node-h100-7": 0.001}}
    assert engine_options(PAIR, H100) == {"tensor_parallel_size": 2, "gpu_memory_utilization": 0.9497}


@given(st.lists(st.integers(1, 100), min_size=1))
def test_parts_of_one_gpu_never_ask_for_more_memory_than_may_be_used(parts: list[int]) -> None:
    together = [hundredths for number, hundredths in enumerate(parts) if sum(parts[: number + 1]) <= 100]
    shapes = [Shape("H100", 1, hundredths, H100.usable_mib * hundredths // 100, 1.0) for hundredths in together]
    used = sum(engine_options(shape, H100)["gpu_memory_utilization"] for shape in shapes)
    assert used <= H100.usable_mib / H100.memory_mib + 1e-9
