"""What vLLM's /metrics page says of its KV cache. Only the lines that are needed are looked at: a page has hundreds.

Another engine's page has none of them, and says nothing.
"""

from __future__ import annotations

import re

from gateway.policy.routing import Pressure

_USAGE = re.compile(rb"^vllm:kv_cache_usage_perc(?:\{[^\n]*\})? (\S+)", re.MULTILINE)
_WAITING = re.compile(rb"^vllm:num_requests_waiting(?:\{[^\n]*\})? (\S+)", re.MULTILINE)
_CONFIG = re.compile(rb"^vllm:cache_config_info\{([^\n]*)\}", re.MULTILINE)
_TOKENS = re.compile(rb'(?:^|,)kv_cache_size_tokens="(\d+)"')
_BLOCKS = re.compile(rb'(?:^|,)num_gpu_blocks="(\d+)"')
_BLOCK_SIZE = re.compile(rb'(?:^|,)block_size="(\d+)"')


def pressure(page: bytes) -> Pressure | None:
    """The fullest cache of the server's engines, all their waiting calls and all their tokens; None if nothing is said."""
    try:
        usages = [float(value) for value in _USAGE.findall(page)]
        waiting = sum(float(value) for value in _WAITING.findall(page))
    except ValueError:
        return None
    # A NaN, which Prometheus allows, is in no order and falls out too.
    if not usages or not all(0.0 <= usage <= 1.0 for usage in usages) or not 0.0 <= waiting < 1e9:
        return None
    return Pressure(max(usages), int(waiting), sum(map(_tokens, _CONFIG.findall(page))) or None)


def _tokens(labels: bytes) -> int:
    """An engine says it in one number; the product is too much where layers have caches of different kinds."""
    told = _TOKENS.search(labels)
    if told:
        return int(told[1])
    blocks, size = _BLOCKS.search(labels), _BLOCK_SIZE.search(labels)
    return int(blocks[1]) * int(size[1]) if blocks and size else 0
