"""vLLM's single-process executor with one addition: the engine process it runs in dies with the replica that started it.

vLLM starts the engine core as a process of its own and, when the replica is killed, leaves it behind with its memory. The
executor is the one piece of ours that vLLM itself constructs inside that process: there the kernel can be asked to end it.

It also keeps a CPU replica at two processes: for CPUs vLLM would otherwise put the worker into a third, which imports everything
once more (8 s), only to be able to bind threads to cores. daemun does not bind them.
"""

import multiprocessing
import signal
from typing import Any

from vllm.v1.executor.uniproc_executor import UniProcExecutor

from serving import start_log
from serving.processes import die_with_parent


class LeashedExecutor(UniProcExecutor):  # type: ignore[misc]  # vLLM is untyped here
    """One worker, in the engine's own process, which does not outlive its parent."""

    def _init_executor(self) -> None:
        # SIGKILL: there is nobody left to drain for.
        die_with_parent(signal.SIGKILL)
        if multiprocessing.get_start_method() == "forkserver":
            # It names every lock in /dev/shm, and a killed process leaves the name there. vLLM starts nothing by the default.
            multiprocessing.set_start_method("fork", force=True)
        with start_log.part("model"):
            super()._init_executor()

    def initialize_from_config(self, kv_cache_configs: list[Any]) -> None:
        with start_log.part("cache"):
            super().initialize_from_config(kv_cache_configs)

    def compile_or_warm_up_model(self) -> None:
        with start_log.part("warm-up"):
            super().compile_or_warm_up_model()
