"""How each gateway that is compared is started: on one core, one worker, in front of the one scripted engine.

Each as its makers ship it, with what costs it least where there is a choice: the routers with their cheapest policy and without
log lines for each call, LiteLLM without a database. daemun runs with all that it has: keys, limits, queue, ledger.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks.gateway import request
from benchmarks.gateway.answers import MODEL
from benchmarks.gateway.processes import GATEWAY_CORE, LOAD_CORE, BenchmarkError, answer_of, free_port, running

DIRECT = "direct"
DAEMUN = "daemun"
VLLM_ROUTER = "vllm-router"
SMG = "smg"
LITELLM = "litellm"
INSTALLED = (VLLM_ROUTER, SMG, LITELLM)
ALL = (DIRECT, DAEMUN, *INSTALLED)

_ENVIRONMENTS = Path(".daemun/peers")
_START_S = 120.0
_MOST_AT_ONCE = 20_000
_LIMITS = ("--requests-per-minute", "1000000000", "--tokens-per-minute", "1000000000000")
_LITELLM_KEY = "sk-bench-0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that answers. `process` is None for `direct`, which is the engine itself."""

    name: str
    port: int
    key: str
    process: psutil.Process | None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}{request.PATH}"


@dataclass(frozen=True, slots=True)
class _Start:
    """What to run to have a gateway on a port."""

    command: list[str]
    key: str = "none"
    environment: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def engine(folder: Path) -> Iterator[Gateway]:
    """The scripted engine, on the load's core; as a gateway it is `direct`."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.gateway.upstream", str(port)]
    with running(command, core=LOAD_CORE, log=folder / "engine.log") as process:
        direct = Gateway(DIRECT, port, "none", None)
        _wait_until_it_answers(direct, process, folder / "engine.log")
        yield direct


@contextmanager
def gateway(name: str, direct: Gateway, folder: Path) -> Iterator[Gateway]:
    """The named gateway in front of the engine. Raises BenchmarkError if it does not come up."""
    if name == DIRECT:
        yield direct
        return
    port = free_port()
    start = _STARTS[name](f"http://{direct.host}", port, folder)
    log = folder / f"{name}.log"
    with running(start.command, core=GATEWAY_CORE, log=log, environment=start.environment) as process:
        started = Gateway(name, port, start.key, process)
        _wait_until_it_answers(started, process, log)
        yield started


def version_of(name: str) -> str:
    """The version that runs; empty for `direct`."""
    if name in (DIRECT, DAEMUN):
        return version(DAEMUN) if name == DAEMUN else ""
    requirement = (_ENVIRONMENTS / name / "daemun-peer").read_text().strip()
    return requirement.partition("==")[2]


def _daemun(engine_url: str, port: int, folder: Path) -> _Start:
    """Real settings, a key with limits out of reach, the ledger on; only the places are more than usual, as the load is."""
    settings = folder / "daemun.yaml"
    queue = {"places_per_replica": _MOST_AT_ONCE, "most_waiting": _MOST_AT_ONCE}
    fleets = [{"kind": "static", "urls": [engine_url], "models": [MODEL]}]
    values = {"state_dir": str(folder / "state"), "gateway": {"port": port, "fleets": fleets, "queue": queue}}
    settings.write_text(json.dumps(values))  # JSON is YAML
    daemun = [sys.executable, "-m", "daemun", "--config", str(settings)]
    made = answer_of([*daemun, "keys", "create", "--tenant", "bench"], core=LOAD_CORE, timeout_s=_START_S)
    key = next(line.split()[1] for line in made.splitlines() if line.startswith("key "))
    answer_of([*daemun, "limits", "set", "--tenant", "bench", *_LIMITS], core=LOAD_CORE, timeout_s=_START_S)
    return _Start([*daemun, "gateway"], key)


def _vllm_router(engine_url: str, port: int, folder: Path) -> _Start:
    router = str(_ENVIRONMENTS / VLLM_ROUTER / "bin" / "vllm-router")
    return _Start([router, *_router_options(engine_url, port), "--log-level", "warning"])


def _smg(engine_url: str, port: int, folder: Path) -> _Start:
    router = str(_ENVIRONMENTS / SMG / "bin" / "smg")
    return _Start([router, "launch", *_router_options(engine_url, port), "--log-level", "warn", "--backend", "vllm"])


def _router_options(engine_url: str, port: int) -> list[str]:
    """What the two routers, which have one ancestor, understand in the same way."""
    own = ["--host", "127.0.0.1", "--port", str(port), "--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())]
    policy = ["--policy", "round_robin", "--max-concurrent-requests", str(_MOST_AT_ONCE)]
    return [*own, *policy, "--worker-urls", engine_url, "--worker-startup-check-interval", "1"]


def _litellm(engine_url: str, port: int, folder: Path) -> _Start:
    config = folder / "litellm.yaml"
    parameters = {"model": f"openai/{MODEL}", "api_base": f"{engine_url}/v1", "api_key": "none"}
    values = {
        "model_list": [{"model_name": MODEL, "litellm_params": parameters}],
        "general_settings": {"master_key": _LITELLM_KEY},
    }
    config.write_text(json.dumps(values))
    command = [str(_ENVIRONMENTS / LITELLM / "bin" / "litellm"), "--config", str(config), "--port", str(port)]
    offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_TELEMETRY": "False"}
    return _Start([*command, "--host", "127.0.0.1", "--num_workers", "1"], _LITELLM_KEY, offline)


_STARTS: Mapping[str, Callable[[str, int, Path], _Start]] = {
    DAEMUN: _daemun,
    VLLM_ROUTER: _vllm_router,
    SMG: _smg,
    LITELLM: _litellm,
}


def _wait_until_it_answers(started: Gateway, process: psutil.Popen, log: Path) -> None:
    until = time.monotonic() + _START_S
    said = "nothing"
    while time.monotonic() < until:
        if process.poll() is not None:
            said = f"it ended with exit code {process.returncode}"
            break
        try:
            status = _ask(started)
        except OSError as problem:
            said = str(problem)
        else:
            if status == 200:
                return
            said = f"HTTP status {status}"
        time.sleep(0.2)
    raise BenchmarkError(f"{started.name} does not answer ({said}); what it said is in {log}")


def _ask(started: Gateway) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", started.port, timeout=10)
    try:
        headers = {"authorization": f"Bearer {started.key}", "content-type": "application/json"}
        connection.request("POST", request.PATH, request.short_call(), headers)
        response = connection.getresponse()
        response.read()
        return response.status
    except http.client.HTTPException as problem:
        raise OSError(str(problem)) from problem
    finally:
        connection.close()
