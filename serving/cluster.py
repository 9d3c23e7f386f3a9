"""The process that owns a local Ray head and Ray Serve: starts them, deploys every model, watches, ends them in order.

It is a process of its own, started and supervised by `host.py`, because Ray ends its driver without ceremony when a part of
the cluster dies. Settings come as JSON on standard input; what a person should read goes, one line each, to the file descriptor
given as argument; all else lands in the supervisor's log.
"""

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType

import psutil
import ray
from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.exceptions import RayServeException
from ray.serve.schema import LoggingConfig

from serving.app import choose_device
from serving.applications import FIXED, Applications, CannotStart, RayServe, changes_at_next_start, most_cpus
from serving.cause import one_line
from serving.placement import RESOURCE, Accelerators
from serving.processes import die_with_parent, is_alive
from serving.run_dir import settings_path
from serving.settings import ServingSettings
from serving.spec import ModelSpec, SpecError, folders, read_spec
from serving.start_log import Starts

OBJECT_STORE_BYTES = 80 * 2**20  # nothing passes through it; Ray insists on 75 MiB
POLL_S = 0.5
CONTROLLER_SILENCE_S = 30.0

Report = Callable[[str], None]


class ClusterFailed(Exception):
    """A part is gone or a model cannot start. Its message is one sentence for the person at the terminal."""


def main() -> int:
    """Runs until SIGTERM or until something fails. At SIGUSR1 it goes over to the settings in the run's directory."""
    die_with_parent()
    supervisor = os.getppid()
    report_file = os.fdopen(int(sys.argv[1]), "w", buffering=1)
    os.set_inheritable(report_file.fileno(), False)  # or every Ray process would hold the supervisor's pipe open
    settings = ServingSettings.model_validate_json(sys.stdin.read())
    stop, reload = threading.Event(), threading.Event()

    def report(line: str) -> None:
        with suppress(BrokenPipeError):  # the supervisor was killed; we still end in order
            report_file.write(f"{line}\n")

    def on_signal(signum: int, frame: FrameType | None) -> None:
        stop.set()

    def listen_for_signals() -> None:
        signal.signal(signal.SIGTERM, on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, lambda signum, frame: reload.set())

    listen_for_signals()
    try:
        _start_ray(settings, _specs(settings), report)
        listen_for_signals()  # ray.init installs its own
        _serve_until(stop, reload, settings, report)
    except ClusterFailed as failure:
        report(str(failure))
        # Without goodbye: what is broken can hold up an orderly end for a minute, and the supervisor ends everything anyway.
        os._exit(1)
    _end(report)
    if os.getppid() != supervisor:
        shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)  # nobody else is left to do it
    return 0


def _start_ray(settings: ServingSettings, specs: list[ModelSpec], report: Report) -> None:
    report("Ray: starting")
    simulated = settings.simulated_accelerators
    try:
        ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, int(most_cpus(specs, settings)) + 1),
            resources={RESOURCE: simulated} if simulated else None,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=True,
            dashboard_host=settings.dashboard_host,
            dashboard_port=settings.dashboard_port,
            log_to_driver=False,
            logging_level="error",
            namespace="daemun",
            _node_ip_address=settings.host,
            _temp_dir=os.environ["TMPDIR"],
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise ClusterFailed(f"Ray does not start: {one_line(error)}") from error
    report(f"Ray: ready, REST API at http://{settings.dashboard_host}:{settings.dashboard_port}")


def _serve_until(stop: threading.Event, reload: threading.Event, settings: ServingSettings, report: Report) -> None:
    threading.Thread(target=_end_with_parts, args=(_cluster_parts(), stop, report), daemon=True).start()
    report("Ray Serve: starting")
    serve.start(
        proxy_location=ProxyLocation.HeadOnly,
        http_options=HTTPOptions(host=settings.host, port=settings.proxy_port),
        logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
    )
    applications = Applications(RayServe(), _accelerators(settings), report)
    try:
        applications.go_over_to(settings, _specs(settings))
    except ValueError as error:
        raise ClusterFailed(f"The models cannot be started: {one_line(error)}") from error
    starts = Starts(Path(os.environ["TMPDIR"]))
    began = last_heard = time.monotonic()
    said: dict[str, str] = {}
    while not stop.wait(POLL_S):
        if reload.is_set():
            reload.clear()
            settings = _reload(applications, settings, report)
            began = time.monotonic()
        try:
            status = serve.status()
        except (RayServeException, ray.exceptions.RayError) as error:
            if time.monotonic() - last_heard > CONTROLLER_SILENCE_S:
                raise ClusterFailed(f"Ray Serve's controller does not answer: {one_line(error)}") from error
            continue
        last_heard = time.monotonic()
        for start in starts.over():
            report(start.sentence())
        try:
            lines = dict(applications.look(status.applications))
        except CannotStart as failure:
            raise ClusterFailed(str(failure)) from failure
        for name, line in lines.items():
            if said.get(name) != line:
                said[name] = line
                report(f"{line} after {last_heard - began:.0f} s")
    report("stopping: running answers may finish")


def _end_with_parts(parts: Mapping[str, psutil.Process], stop: threading.Event, report: Report) -> None:
    """Ends this process when a part is gone. In a thread of its own, because Ray's calls then hang for minutes."""
    while not stop.wait(POLL_S):
        if gone := [name for name, process in parts.items() if not is_alive(process)]:
            report(f"{gone[0]} of Ray has ended, and with it everything else")
            os._exit(1)


def _specs(settings: ServingSettings) -> list[ModelSpec]:
    """Raises SpecError."""
    return [read_spec(model, *folders(settings.catalog_dir)) for model in settings.models]


def _accelerators(settings: ServingSettings) -> Accelerators | None:
    if choose_device(settings) == "gpu":
        return Accelerators(int(ray.cluster_resources().get("GPU", 0)))
    return (
        Accelerators(settings.simulated_accelerators, settings.simulated_memory_gib) if settings.simulated_accelerators else None
    )


def _reload(applications: Applications, before: ServingSettings, report: Report) -> ServingSettings:
    """From the settings so far to those that the supervisor has written; if they cannot be used, nothing changes."""
    try:
        asked = ServingSettings.model_validate_json(settings_path(Path(os.environ["TMPDIR"])).read_text())
        for name in changes_at_next_start(before, asked):
            report(f"serving.{name} changes at the next start only")
        after = asked.model_copy(update={name: getattr(before, name) for name in FIXED})
        applications.go_over_to(after, _specs(after))
    except (OSError, ValueError, SpecError) as error:
        report(f"no reload: {one_line(error)}")
        return before
    return after


def _cluster_parts() -> dict[str, psutil.Process]:
    """Ray's own processes that the cluster cannot lose, by name. They are our direct children."""
    names = {"gcs_server": "the control store", "raylet": "the node daemon", "dashboard.py": "the REST API"}
    parts: dict[str, psutil.Process] = {}
    for process in psutil.Process().children():
        for word in process.cmdline()[:3]:
            if name := names.get(Path(word).name):
                parts[name] = process
    return parts


def _end(report: Report) -> None:
    if ray.is_initialized():
        try:
            serve.shutdown()
        except (RayServeException, ray.exceptions.RayError, TimeoutError) as error:
            report(f"Ray Serve did not end in order: {one_line(error)}")
        ray.shutdown()


if __name__ == "__main__":
    sys.exit(main())
