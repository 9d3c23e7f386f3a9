"""The Ray Serve replica: vLLM's engine and vLLM's own OpenAI server in one deployment class.

Serve gives the place, the port, the health checks and the restarts; vLLM gives every route. A replica adds no route and touches
no request: with direct ingress the gateway's connection ends in vLLM's own app.

`ray.serve.llm` does something similar. It is not used because it insists on HAProxy for direct ingress, pulls in Ray's data
stack, and replaces vLLM's Prometheus statistics by Ray's, which is why /metrics has no `vllm:*` series there.
"""

import argparse
import importlib.util
import logging
import multiprocessing
import multiprocessing.forkserver
import os
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import ValidationError

from serving import start_log
from serving.parser import known_parsers, unknown_parser
from serving.spec import ModelSpec

logger = logging.getLogger("ray.serve")

Device = Literal["cpu", "gpu"]
_LONGEST_ERROR = 1000  # characters


def engine_args(spec: ModelSpec, device: Device, share: Mapping[str, int | float] = MappingProxyType({})) -> dict[str, Any]:
    """vLLM's engine arguments for a spec, by their Python names. `share` are those for a part of an accelerator's memory."""
    engine = spec.engine
    args: dict[str, Any] = {
        "model": spec.weights,
        "served_model_name": [spec.id],
        "dtype": engine.dtype,
        "max_model_len": spec.max_model_len,
        "max_num_seqs": engine.max_num_seqs,
        "max_num_queued_reqs": engine.max_num_queued_reqs,
        "max_num_queued_tokens": engine.max_num_queued_tokens,
        "enforce_eager": engine.enforce_eager,
        "disable_log_stats": False,
        "enable_log_requests": False,
    }
    if device == "cpu":
        args["kv_cache_memory_bytes"] = int(engine.kv_cache_gib * 2**30)
    args |= share
    if spec.parsers is not None and spec.parsers.reasoning is not None:
        args["reasoning_parser"] = spec.parsers.reasoning
    args |= engine.extra_args
    if args.get("tensor_parallel_size", 1) == 1 and args.get("pipeline_parallel_size", 1) == 1:
        args.setdefault("distributed_executor_backend", "serving.executor.LeashedExecutor")
    return args


def frontend_args(spec: ModelSpec) -> dict[str, Any]:
    """vLLM's arguments of the OpenAI server in front of the engine. With a tool parser the model may call tools unasked."""
    args: dict[str, Any] = {"enable_server_load_tracking": True, "disable_fastapi_docs": True}
    if spec.parsers is not None and spec.parsers.tools is not None:
        args |= {"tool_call_parser": spec.parsers.tools, "enable_auto_tool_choice": True}
    return args


class EngineFailed(Exception):
    """The engine did not start. Its message is one line."""


class Replica:
    """One engine with its server. Wrapped by `serving.app.build_app`; Serve calls everything below by name."""

    async def __init__(self, spec: ModelSpec, device: Device, share: Mapping[str, int | float]) -> None:  # type: ignore[misc]  # Serve awaits it
        self._spec = spec
        if wrong := unknown_parser(spec.parsers, known_parsers()):
            raise EngineFailed(f"{spec.id}: {wrong}")
        if spec.engine.enforce_eager:
            # vLLM still compiles its sampler: 25 s in the first request, by a C++ compiler that may not even be there.
            os.environ["TORCH_COMPILE_DISABLE"] = "1"
        start_log.begin(spec.id)
        if device == "cpu":
            _preload_engine_process()
        with start_log.part("imports"):
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.usage.usage_lib import UsageContext
            from vllm.v1.engine.async_llm import AsyncLLM

        if device == "cpu":
            _fork_engine_from_preloaded()
        self._args = AsyncEngineArgs(**engine_args(spec, device, share))
        try:
            with start_log.part("engine"):
                self._client = AsyncLLM.from_engine_args(self._args, usage_context=UsageContext.OPENAI_API_SERVER)
        except Exception as error:  # noqa: BLE001 - vLLM's validation errors cannot be pickled: Serve would report that instead
            raise EngineFailed(f"vLLM cannot load {spec.weights}: {_sentence(error)}") from None

    async def __serve_build_asgi_app__(self) -> Any:
        """vLLM's own FastAPI app. Serve calls this once, after the constructor."""
        with start_log.part("server"):
            return await self._build_server()

    async def _build_server(self) -> Any:
        from vllm.entrypoints.launchers.api_server.app_state import init_app_state
        from vllm.entrypoints.launchers.app import build_app
        from vllm.entrypoints.launchers.cli_args import FrontendArgs

        frontend = FrontendArgs(**frontend_args(self._spec))
        args = argparse.Namespace(**(vars(frontend) | vars(self._args)))
        tasks = await self._client.get_supported_tasks()
        app = build_app(args, supported_tasks=tasks, model_config=self._client.model_config)
        await init_app_state(self._client, app.state, args, supported_tasks=tasks)
        _bound_error_messages()
        # On a dead engine vLLM's error handler tells its uvicorn server to exit. Here Serve owns the server and `check_health`
        # brings the restart, but the handler must find something to write to.
        app.state.server = types.SimpleNamespace()
        return app

    async def check_health(self) -> None:
        """Ends the replica when its engine is dead; Serve then starts another.

        Raising would also do, but only at the third time, and until then the replica would take requests that it cannot answer.
        """
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            await self._client.check_health()
        except EngineDeadError:
            logger.error("The engine process has ended; the replica ends with it.")
            os._exit(1)

    def __del__(self) -> None:
        # Serve calls this after the drain. The constructor may have failed before there was a client.
        if client := getattr(self, "_client", None):
            client.shutdown()


def _sentence(error: Exception) -> str:
    """What went wrong, on one line: pydantic's errors have many, and repeat the whole input."""
    text = str(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else str(error)
    return " ".join(text.split())


def _bound_error_messages() -> None:
    """Keep vLLM's error messages short before it searches them for paths.

    They quote what is wrong in a request, and one of vLLM's patterns takes a time that grows with the cube of what it is given:
    16 kB of slashes in a mistyped field would hold the whole replica for minutes.
    """
    from vllm.entrypoints.serve.exception_handling import utils

    whole = utils.sanitize_message

    def bounded(message: str) -> str:
        cleaned: str = whole(message[:_LONGEST_ERROR])
        return cleaned

    for module in list(sys.modules.values()):
        if getattr(module, "sanitize_message", None) is whole:
            module.sanitize_message = bounded  # type: ignore[attr-defined]


def _preload_engine_process() -> None:
    """Start importing vLLM for the engine process now, beside our own import of it.

    vLLM spawns the engine only when the replica has imported and configured everything, and then imports it all again: 8 s each,
    one after the other. A fork server does the second import at the same time, on another core.
    """
    before = os.environ.get("LD_PRELOAD")
    os.environ["LD_PRELOAD"] = ":".join(_preload_libraries())
    try:
        multiprocessing.set_forkserver_preload(["vllm.v1.engine.core", "vllm.v1.worker.cpu_worker", "serving.executor"])
        multiprocessing.forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["LD_PRELOAD"]
        else:
            os.environ["LD_PRELOAD"] = before


def _fork_engine_from_preloaded() -> None:
    """Let vLLM take its engine process from the fork server. Inside Ray it would always spawn, whatever its settings say."""
    from vllm.v1.engine import utils

    utils.get_mp_context = lambda: multiprocessing.get_context("forkserver")


def _preload_libraries() -> list[str]:
    """torch's OpenMP and vLLM's tcmalloc, which vLLM preloads into the processes it spawns itself."""
    found: list[str] = []
    for package, pattern in (
        ("torch", "lib/libgomp*.so*"),
        ("torch", "../torch.libs/libgomp*.so*"),
        ("vllm", "libs/libtcmalloc*.so*"),
    ):
        spec = importlib.util.find_spec(package)  # finds a top-level package without importing it
        if spec and spec.origin:
            found += [str(path.resolve()) for path in Path(spec.origin).parent.glob(pattern)]
    return found
