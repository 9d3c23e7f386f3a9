"""The three facts on a metrics page of hundreds of lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.routing import Pressure
from gateway.protocol.vllm_metrics import pressure

PAGE = b"""# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="daemun-demo"} 3.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="daemun-demo",reason="capacity"} 3.0
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="daemun-demo"} 0.25
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="0",num_gpu_blocks="4096",swap_space="4"} 1.0
vllm:num_preemptions_total{engine="0",model_name="daemun-demo"} 0.0
"""


def test_usage_waiting_calls_and_size_are_read() -> None:
    assert pressure(PAGE) == Pressure(0.25, waiting=3, kv_tokens=4096 * 16)


def test_several_engines_count_by_the_fullest_and_together() -> None:
    second = PAGE.replace(b'engine="0"', b'engine="1"').replace(b" 0.25", b" 7.5e-01").replace(b"} 3.0", b"} 1.0")
    assert pressure(PAGE + second) == Pressure(0.75, waiting=4, kv_tokens=2 * 4096 * 16)


def test_engines_own_word_for_its_size_counts_before_the_product() -> None:
    """For models whose layers have caches of different kinds, blocks times tokens would be too much."""
    page = PAGE.replace(b'engine="0",num_gpu', b'engine="0",kv_cache_size_tokens="50000",num_gpu')
    assert pressure(page) == Pressure(0.25, waiting=3, kv_tokens=50000)
    assert pressure(page.replace(b'"50000"', b'"None"')) == Pressure(0.25, waiting=3, kv_tokens=4096 * 16)


def test_size_is_unknown_where_the_engine_does_not_say() -> None:
    assert pressure(b"vllm:kv_cache_usage_perc 1.0\n") == Pressure(1.0)
    assert pressure(PAGE.replace(b'"4096"', b'"None"')) == Pressure(0.25, waiting=3)


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"<html>404</html>",
        b"llamacpp:kv_cache_usage_ratio 0.5\n",
        b"# vllm:kv_cache_usage_perc 0.5\n",
        b"vllm:kv_cache_usage_perc NaN\n",
        b"vllm:kv_cache_usage_perc -1\n",
        b"vllm:kv_cache_usage_perc full\n",
        b"vllm:kv_cache_usage_perc 0.5\nvllm:num_requests_waiting +Inf\n",
    ],
)
def test_page_that_says_nothing_of_the_cache_is_no_error(page: bytes) -> None:
    assert pressure(page) is None


@given(st.binary(max_size=200), st.integers(0, len(PAGE)))
def test_no_page_is_an_error(noise: bytes, at: int) -> None:
    found = pressure(PAGE[:at] + noise + PAGE[at:])
    assert found is None or 0.0 <= found.room <= 1.0
