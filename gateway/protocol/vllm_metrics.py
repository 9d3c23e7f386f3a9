"""What vLLM's /metrics page says of its KV cache and of the tokens it counted.

Only the lines that are needed are looked at: a page has hundreds.

Another engine's page has none of them, and says nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.policy.routing import Pressure

_USAGE = re.compile(rb"^vllm:kv_cache_usage_perc(?:\{[^\n]*\})? (\S+)", re.MULTILINE)
_WAITING = re.compile(rb"^vllm:num_requests_waiting(?:\{[^\n]*\})? (\S+)", re.MULTILINE)
_RUNNING = re.compile(rb"^vllm:num_requests_running(?:\{[^\n]*\})? (\S+)", re.MULTILINE)
_PROMPT_TOKENS = re.compile(rb"^vllm:prompt_tokens_total(?:\{[^\n]*\})? (\S+)", re.MULTILINE)
_GENERATION_TOKENS = re.compile(rb"^vllm:generation_tokens_total(?:\{[^\n]*\})? (\S+)", re.MULTILINE)
_STARTED = re.compile(rb"^process_start_time_seconds (\S+)", re.MULTILINE)
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


@dataclass(frozen=True, slots=True)
class Counted:
    """What a server has counted since it started at `since`, and how many calls it runs now.

    The prompt's tokens are all of them, cached ones too; of a call with several choices, once for each choice.
    """

    since: float
    prompt_tokens: int
    generation_tokens: int
    running: int


def counted(page: bytes) -> Counted | None:
    """Over all engines and models of the server; None if nothing is said."""
    try:
        prompts, generated, running = (
            sum(float(value) for value in pattern.findall(page)) if pattern.search(page) else -1.0
            for pattern in (_PROMPT_TOKENS, _GENERATION_TOKENS, _RUNNING)
        )
        started = _STARTED.search(page)
        since = float(started[1]) if started else 0.0
    except ValueError:
        return None
    if not all(0.0 <= number < 1e15 for number in (prompts, generated, running, since)):
        return None
    return Counted(since, int(prompts), int(generated), int(running))
