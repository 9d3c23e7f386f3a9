"""What vLLM is told to run: engine arguments from a spec."""

import importlib.util
from pathlib import Path

import pytest

from serving.card import Parsers
from serving.replica import Device, engine_args, frontend_args
from serving.spec import Description, EngineSpec, ModelSpec


def spec(engine: EngineSpec) -> ModelSpec:
    return ModelSpec(
        id="small",
        title="Small",
        source="org/small",
        licence="Apache-2.0",
        architecture="LlamaForCausalLM",
        context_tokens=4096,
        description=Description(en="A model.", ko="모델입니다."),
        engine=engine,
    )


def test_model_is_served_under_its_id() -> None:
    assert engine_args(spec(EngineSpec()), "cpu")["served_model_name"] == ["small"]


def test_queue_is_bounded_and_statistics_are_on() -> None:
    args = engine_args(spec(EngineSpec(max_num_queued_reqs=7, max_num_queued_tokens=900)), "gpu")
    assert (args["max_num_queued_reqs"], args["max_num_queued_tokens"]) == (7, 900)
    assert args["disable_log_stats"] is False


def test_cache_memory_is_fixed_on_a_cpu_and_left_to_vllm_on_a_gpu() -> None:
    assert engine_args(spec(EngineSpec(kv_cache_gib=0.5)), "cpu")["kv_cache_memory_bytes"] == 2**29
    assert "kv_cache_memory_bytes" not in engine_args(spec(EngineSpec()), "gpu")


def test_extra_arguments_have_the_last_word() -> None:
    args = engine_args(spec(EngineSpec(extra_args={"enable_prefix_caching": False, "dtype": "float32"})), "cpu")
    assert args["enable_prefix_caching"] is False
    assert args["dtype"] == "float32"


def test_single_worker_dies_with_its_replica() -> None:
    devices: list[Device] = ["cpu", "gpu"]
    for device in devices:
        args = engine_args(spec(EngineSpec()), device)
        assert args["distributed_executor_backend"] == "serving.executor.LeashedExecutor"


def test_several_workers_are_left_to_vllms_own_executor() -> None:
    args = engine_args(spec(EngineSpec(extra_args={"tensor_parallel_size": 2})), "gpu")
    assert "distributed_executor_backend" not in args


def test_parsers_go_to_the_engine_and_to_the_server_in_front_of_it() -> None:
    parsed = spec(EngineSpec()).model_copy(update={"parsers": Parsers(reasoning="qwen3", tools="hermes", source="a test")})
    assert engine_args(parsed, "cpu")["reasoning_parser"] == "qwen3"
    assert frontend_args(parsed)["tool_call_parser"] == "hermes"
    assert frontend_args(parsed)["enable_auto_tool_choice"] is True


def test_without_parsers_the_text_stays_as_the_model_wrote_it() -> None:
    for parsers in (None, Parsers(reasoning=None, tools=None, source="a test")):
        plain = spec(EngineSpec()).model_copy(update={"parsers": parsers})
        assert "reasoning_parser" not in engine_args(plain, "cpu")
        assert not {"tool_call_parser", "enable_auto_tool_choice"} & frontend_args(plain).keys()


VLLM = importlib.util.find_spec("vllm")


@pytest.mark.skipif(VLLM is None, reason="vLLM is not installed")
@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("v1/engine/utils.py", "import get_mp_context"),
        ("entrypoints/launchers/app.py", "def build_app("),
        ("entrypoints/launchers/api_server/app_state.py", "def init_app_state("),
        ("entrypoints/serve/exception_handling/utils.py", "def sanitize_message("),
    ],
)
def test_what_a_replica_replaces_in_vllm_is_there_under_that_name(file: str, text: str) -> None:
    """Replacing a name that nobody uses any more would fail no test of ours, and only make starts slow again."""
    assert VLLM is not None
    assert VLLM.origin is not None
    assert text in (Path(VLLM.origin).parent / file).read_text(encoding="utf-8")
