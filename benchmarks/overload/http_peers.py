"""What the load is sent to: simulated engines, and before them nothing, daemun, or LiteLLM. The engines share the load's core."""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

from benchmarks.gateway.peers import DAEMUN, DIRECT, LITELLM
from benchmarks.gateway.processes import GATEWAY_CORE, LOAD_CORE, BenchmarkError, answer_of, free_port, running

MODEL = "simulated"
PATH = "/v1/chat/completions"
TENANTS_PER_TIER = 2
PROMPT_S = 0.1  # a paid call that would wait longer is told so at once; a first token takes three times that when nobody waits
PATIENCE_S = 2.0  # of a client that waits, so that its target can be met
_START_S = 120.0
_SETTLE_S = 40.0
_SETTLED_S = 1.0  # a lone call's answer; it takes a fifth of that
_LITELLM_KEY = "sk-bench-0123456789abcdef"
_ENVIRONMENTS = Path(".daemun/peers")


@dataclass(frozen=True, slots=True)
class EngineKind:
    """The engines of a run: named figures, so many times as fast, with so many seats each.

    So slow that LiteLLM, which needs a core for some 15 streams/s of this size, is not full before they are.
    """

    figures: str = "demo-cpu"
    scale: float = 0.22
    seats: int = 6
    replicas: int = 2


@dataclass(frozen=True, slots=True)
class Engines:
    ports: tuple[int, ...]
    kind: EngineKind

    def states(self) -> list[dict[str, Any]]:
        return [_get(port, "/simulation") for port in self.ports]

    def late_ms(self) -> float:
        """The most that any of them has been late since it was last asked."""
        return max(float(state["late_ms"]) for state in self.states())

    def are_idle(self) -> bool:
        return all(state["running"] == state["waiting"] == 0 for state in self.states())


class Behind(Protocol):
    """The engines of a run, as far as a run looks at them."""

    def are_idle(self) -> bool: ...

    def late_ms(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Target:
    """Where calls are sent to. `keys`: by tier, its tenants'. `exact`: a real engine, told how many tokens to make."""

    name: str
    ports: tuple[int, ...]
    keys: dict[str, list[str]]
    process: psutil.Process | None
    model: str = MODEL
    path: str = PATH
    exact: bool = False

    def answers(self) -> bool:
        """Whether a lone call is answered soon."""
        began = time.monotonic()
        try:
            return self._ask() == 200 and time.monotonic() - began < _SETTLED_S
        except OSError:
            return False

    def _ask(self) -> int:
        question = {"role": "user", "content": "안녕하세요, 2 tokens"}
        body = json.dumps({"model": self.model, "messages": [question], "max_tokens": 2}).encode()
        return exchange(self.ports[0], "POST", self.path, body, next(iter(self.keys.values()))[0])[0]


@contextmanager
def engines(kind: EngineKind, folder: Path) -> Iterator[Engines]:
    ports = tuple(free_port() for _ in range(kind.replicas))
    options = ["--figures", kind.figures, "--scale", str(kind.scale), "--max-num-seqs", str(kind.seats), "--model", MODEL]
    listens = [option for port in ports for option in ("--port", str(port))]
    log = folder / "engines.log"
    with running([sys.executable, "-m", "loadtests.engine_sim", *listens, *options], core=LOAD_CORE, log=log) as process:
        made = Engines(ports, kind)
        _until(lambda: bool(_get(ports[-1], "/simulation")), process, "the simulated engines", log)
        yield made


@contextmanager
def target(name: str, behind: Engines, tiers: Sequence[str], folder: Path) -> Iterator[Target]:
    """Answers. Raises BenchmarkError if it does not come up."""
    if name == DIRECT:
        yield Target(DIRECT, behind.ports, {tier: ["none"] for tier in tiers}, None)
        return
    port, log = free_port(), folder / f"{name}.log"
    environment = {}
    if name == DAEMUN:
        command, keys = _daemun(behind, port, tiers, folder)
    else:
        command, keys = _litellm(behind, port, folder), {tier: [_LITELLM_KEY] for tier in tiers}
        environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_TELEMETRY": "False"}
    with running(command, core=GATEWAY_CORE, log=log, environment=environment) as process:
        made = Target(name, (port,), keys, process)
        _until(made.answers, process, name, log)
        yield made


def settle(behind: Behind, gone_to: Target) -> bool:
    """Wait until nothing of a run is left; whether that was so in time."""
    until = time.monotonic() + _SETTLE_S
    while time.monotonic() < until:
        if behind.are_idle() and gone_to.answers() and behind.are_idle():
            behind.late_ms()
            return True
        time.sleep(0.2)
    return False


def queue_settings(seats: int) -> dict[str, object]:
    """Places as many as the engines have seats, and patience of which the targets can be met; all else as it comes."""
    return {"places_per_replica": seats, "patience_s": PATIENCE_S, "batch_patience_s": PATIENCE_S, "prompt_s": PROMPT_S}


def _daemun(behind: Engines, port: int, tiers: Sequence[str], folder: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Real settings, real keys of as many tenants, the ledger on."""
    settings = folder / "daemun.yaml"
    fleets = [{"kind": "static", "urls": [f"http://127.0.0.1:{engine}" for engine in behind.ports], "models": [MODEL]}]
    queue = queue_settings(behind.kind.seats)
    values = {"state_dir": str(folder / "state"), "gateway": {"port": port, "fleets": fleets, "queue": queue}}
    settings.write_text(json.dumps(values))  # JSON is YAML
    command = [sys.executable, "-m", "daemun", "--config", str(settings)]
    keys = {tier: [_key(command, f"{tier}-{number}") for number in range(TENANTS_PER_TIER)] for tier in tiers}
    return [*command, "gateway"], keys


def _key(command: list[str], tenant: str) -> str:
    made = answer_of([*command, "keys", "create", "--tenant", tenant], core=LOAD_CORE, timeout_s=_START_S)
    return next(line.split()[1] for line in made.splitlines() if line.startswith("key "))


def _litellm(behind: Engines, port: int, folder: Path) -> list[str]:
    """A master key, no database, the engines taken by its own router."""
    config = folder / "litellm.yaml"
    models = [
        {
            "model_name": MODEL,
            "litellm_params": {"model": f"openai/{MODEL}", "api_base": f"http://127.0.0.1:{engine}/v1", "api_key": "none"},
        }
        for engine in behind.ports
    ]
    config.write_text(json.dumps({"model_list": models, "general_settings": {"master_key": _LITELLM_KEY}}))
    binary = str(_ENVIRONMENTS / LITELLM / "bin" / "litellm")
    return [binary, "--config", str(config), "--port", str(port), "--host", "127.0.0.1", "--num_workers", "1"]


def _until(true: Callable[[], bool], process: psutil.Popen, what: str, log: Path) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise BenchmarkError(f"{what}: ended with exit code {process.returncode}; what it said is in {log}")
        try:
            if true():
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise BenchmarkError(f"{what}: no answer in {_START_S:.0f} s; what it said is in {log}")


def _get(port: int, path: str) -> dict[str, Any]:
    """Raises OSError."""
    return dict(json.loads(exchange(port, "GET", path)[1]))


def exchange(port: int, method: str, path: str, body: bytes | None = None, key: str = "none") -> tuple[int, bytes]:
    """Status and body. Raises OSError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, {"authorization": f"Bearer {key}", "content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as problem:
        raise OSError(str(problem)) from problem
    finally:
        connection.close()
