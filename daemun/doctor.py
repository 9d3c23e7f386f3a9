"""Is this machine fit for what the settings ask? `look` gathers facts, `judge` decides and says what to do."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import psutil

from daemun.settings import Settings
from gateway import compiled
from gateway.settings import StaticFleet
from serving.parser import Known, known_parsers, unknown_parser
from serving.processes import port_in_use
from serving.spec import InvalidSpec, ModelSpec, SpecError, folders, read_all, read_spec

GIB = 2**30
RAY_GIB = 2.0  # Ray's own processes and the object store
REPLICA_GIB = 2.0  # a replica's two processes without weights and KV cache
FREE_DISK_GIB = 2.0


class Grade(Enum):
    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report: what was looked at, how it is, and what to do about it."""

    subject: str
    grade: Grade
    detail: str
    remedy: str = ""

    def sentence(self) -> str:
        return " ".join(filter(None, (f"{self.subject}: {self.detail}.", self.remedy)))


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found on the machine. Memory and disk in bytes; `busy_ports` are those of the settings that are taken."""

    python: tuple[int, int]
    system: str
    cores: int
    memory_available: int
    disk_free: int
    cpu_flags: frozenset[str]
    gpu: bool
    modules: frozenset[str]
    busy_ports: frozenset[int]
    compiled: bool
    specs: Mapping[str, ModelSpec | SpecError]
    weights_missing: Mapping[str, Path]
    parsers: Known = field(default_factory=dict)
    wrong_entries: Sequence[InvalidSpec] = ()
    catalog_dir_exists: bool = True


@dataclass(frozen=True, slots=True)
class Port:
    """A port that will be listened on, and the setting that moves it."""

    host: str
    number: int
    setting: str


def ports(settings: Settings, *, gateway: bool = True, serving: bool = True) -> list[Port]:
    wanted = []
    if gateway:
        wanted.append(Port(settings.gateway.host, settings.gateway.port, "gateway.port"))
    if serving:
        ray = settings.serving
        wanted.append(Port(ray.dashboard_host, ray.dashboard_port, "serving.dashboard_port"))
        wanted.append(Port(ray.host, ray.proxy_port, "serving.proxy_port"))
    return wanted


def look(settings: Settings) -> Facts:
    own = settings.serving.catalog_dir
    specs = {model: _spec(model, own) for model in settings.serving.models}
    return Facts(
        python=sys.version_info[:2],
        system=platform.system(),
        cores=psutil.cpu_count() or 1,
        memory_available=psutil.virtual_memory().available,
        disk_free=shutil.disk_usage(_existing(settings.state_dir)).free,
        cpu_flags=_cpu_flags(Path("/proc/cpuinfo")),
        gpu=Path("/dev/nvidiactl").exists(),
        modules=frozenset(name for name in ("ray", "vllm", "torch") if importlib.util.find_spec(name)),
        busy_ports=frozenset(port.number for port in ports(settings) if port_in_use(port.host, port.number)),
        compiled=compiled.is_running(),
        specs=specs,
        weights_missing={
            model: spec.local_path
            for model, spec in specs.items()
            if isinstance(spec, ModelSpec) and spec.local_path and not (spec.local_path / "config.json").is_file()
        },
        parsers=known_parsers(),
        wrong_entries=read_all(*folders(own))[1],
        catalog_dir_exists=own is None or own.is_dir(),
    )


def judge(facts: Facts, settings: Settings, *, gateway: bool = True, serving: bool = True) -> list[Finding]:
    """All findings that matter for the parts that are to be started."""
    findings = [_python(facts), _disk(facts), *_ports(facts, ports(settings, gateway=gateway, serving=serving))]
    findings += _catalogue(facts, settings)
    if gateway:
        findings.append(_gateway(facts))
    if serving:
        if gateway:
            findings += _rollouts(settings)
        findings += [_engine(facts), *_models(facts), _memory(facts, settings), _processor(facts), _gpu(facts, settings)]
    findings.append(_stores(settings))
    return findings


def judge_models(facts: Facts, settings: Settings) -> list[Finding]:
    """Of the models alone, for a reload on a machine that serves already."""
    return [*_catalogue(facts, settings), *_models(facts)]


def _python(facts: Facts) -> Finding:
    version = ".".join(map(str, facts.python))
    if facts.python == (3, 11) and facts.system == "Linux":
        return Finding("Python", Grade.OK, f"{version} on {facts.system}")
    return Finding("Python", Grade.FAILURE, f"{version} on {facts.system}", "daemun needs Python 3.11 on Linux.")


def _disk(facts: Facts) -> Finding:
    free = facts.disk_free / GIB
    if free >= FREE_DISK_GIB:
        return Finding("Disk", Grade.OK, f"{free:.0f} GiB free")
    return Finding(
        "Disk", Grade.FAILURE, f"{free:.1f} GiB free", f"Free {FREE_DISK_GIB:.0f} GiB, or move state_dir to a larger disk."
    )


def _ports(facts: Facts, wanted: Sequence[Port]) -> Iterator[Finding]:
    for port in wanted:
        subject = f"Port {port.number}"
        if port.number not in facts.busy_ports:
            yield Finding(subject, Grade.OK, f"free ({port.setting})")
            continue
        variable = "DAEMUN_" + port.setting.replace(".", "__").upper()
        remedy = f"End what listens there, or set {port.setting} in daemun.yaml or {variable} to a free port."
        yield Finding(subject, Grade.FAILURE, "it is in use", remedy)


def _gateway(facts: Facts) -> Finding:
    if facts.compiled:
        return Finding("Gateway", Grade.OK, "its hot path is compiled")
    return Finding("Gateway", Grade.WARNING, "it runs as plain Python, at about half the speed", "Run scripts/compile.")


def _engine(facts: Facts) -> Finding:
    missing = [name for name in ("ray", "torch", "vllm") if name not in facts.modules]
    if not missing:
        return Finding("Engine", Grade.OK, "Ray Serve and vLLM are installed")
    remedy = "'make run' installs them; by hand: scripts/setup serving-cpu (or serving-gpu)."
    return Finding("Engine", Grade.FAILURE, f"{', '.join(missing)} not installed", remedy)


def _catalogue(facts: Facts, settings: Settings) -> Iterator[Finding]:
    """Entries of models that are not served do no harm; they are only mentioned."""
    if not facts.catalog_dir_exists:
        detail = f"serving.catalog_dir is {settings.serving.catalog_dir}, which is no folder"
        yield Finding("Catalogue", Grade.FAILURE, detail, "Make it, or name another in daemun.yaml.")
    served = {str(spec) for spec in facts.specs.values()}  # of which _models speaks
    for error in (one for one in facts.wrong_entries if str(one) not in served):
        yield Finding("Catalogue", Grade.WARNING, str(error).rstrip("."), "Correct the entry; its model cannot be served.")


def _models(facts: Facts) -> Iterator[Finding]:
    for model, spec in facts.specs.items():
        if isinstance(spec, SpecError):
            remedy = "Correct the entry." if isinstance(spec, InvalidSpec) else "Correct serving.models in daemun.yaml."
            yield Finding(f"Model {model}", Grade.FAILURE, str(spec).rstrip("."), remedy)
        elif wrong := unknown_parser(spec.parsers, facts.parsers):
            yield Finding(f"Model {model}", Grade.FAILURE, wrong.rstrip("?"), "Correct it in the model's catalogue entry.")
        elif model in facts.weights_missing:
            yield Finding(
                f"Model {model}", Grade.FAILURE, f"no weights in {facts.weights_missing[model]}", "Put the checkpoint there."
            )
        else:
            yield Finding(f"Model {model}", Grade.OK, f"{spec.title}, {spec.context_tokens} tokens of context")


def _rollouts(settings: Settings) -> Iterator[Finding]:
    """Of models that neither this machine serves nor a list names. Another machine's Ray may have them."""
    lists = [fleet.models for fleet in settings.gateway.fleets if isinstance(fleet, StaticFleet)]
    known = {*settings.serving.models, *(model for models in lists for model in models)}
    for rollout in settings.gateway.rollouts:
        for model in (rollout.model, rollout.candidate):
            if model not in known:
                remedy = "Add it to serving.models, or correct gateway.rollouts; until it is there, no call goes to it."
                yield Finding("Rollouts", Grade.WARNING, f"{model} is not among the models that are served here", remedy)


def _memory(facts: Facts, settings: Settings) -> Finding:
    needed = RAY_GIB
    for model, spec in facts.specs.items():
        if isinstance(spec, ModelSpec):
            needed += settings.serving.replicas.get(model, spec.replicas.count) * (REPLICA_GIB + spec.engine.kv_cache_gib)
    have = facts.memory_available / GIB
    if have >= needed:
        return Finding("Memory", Grade.OK, f"{have:.1f} GiB available, about {needed:.1f} needed")
    remedy = "End other programs, or serve fewer replicas or models (serving.replicas, serving.models)."
    return Finding("Memory", Grade.FAILURE, f"{have:.1f} GiB available, about {needed:.1f} needed", remedy)


def _processor(facts: Facts) -> Finding:
    if "avx512f" in facts.cpu_flags:
        return Finding("Processor", Grade.OK, f"{facts.cores} cores with AVX-512")
    if "avx2" in facts.cpu_flags:
        return Finding("Processor", Grade.OK, f"{facts.cores} cores with AVX2; models run slower than with AVX-512")
    remedy = "Use another machine, or GPUs: vLLM's CPU build needs AVX2."
    return Finding("Processor", Grade.WARNING, f"{facts.cores} cores without AVX2", remedy)


def _gpu(facts: Facts, settings: Settings) -> Finding:
    if facts.gpu:
        return Finding("GPU", Grade.OK, "an NVIDIA driver is loaded")
    if settings.serving.device == "gpu":
        return Finding(
            "GPU", Grade.FAILURE, "serving.device is gpu, but no NVIDIA driver is loaded", "Load it, or set auto or cpu."
        )
    return Finding("GPU", Grade.OK, "none; models run on the CPU")


def _stores(settings: Settings) -> Finding:
    fleets = ", ".join(
        "static list" if isinstance(fleet, StaticFleet) else f"Ray at {fleet.url}" for fleet in settings.gateway.fleets
    )
    shared = settings.gateway.store.url is not None
    tenants = "tenants in PostgreSQL" if shared else f"SQLite in {settings.state_dir}; PostgreSQL is not configured"
    return Finding("Stores", Grade.OK, f"{tenants}; Redis is not configured; fleet: {fleets}")


def failures(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.grade is Grade.FAILURE]


def _spec(model: str, own: Path | None) -> ModelSpec | SpecError:
    try:
        return read_spec(model, *folders(own))
    except SpecError as problem:
        return problem


def _existing(path: Path) -> Path:
    path = path.absolute()
    return path if path.exists() else _existing(path.parent)


def _cpu_flags(cpuinfo: Path) -> frozenset[str]:
    if not cpuinfo.exists():
        return frozenset()
    for line in cpuinfo.read_text().splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()
