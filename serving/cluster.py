"""The process that owns a local Ray head and Ray Serve: starts them, deploys every model, watches, ends them in order.

It is a process of its own, started and supervised by `host.py`, because Ray ends its driver without ceremony when a part of
the cluster dies. Settings come as JSON on standard input; what a person should read goes, one line each, to the file descriptor
given as argument; all else lands in the supervisor's log.
"""

import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType

import psutil
import ray
from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview, LoggingConfig, ServeStatus

from serving.app import build_app
from serving.autoscaling.terms import most_replicas, replica_count
from serving.processes import die_with_parent, is_alive
from serving.settings import ServingSettings
from serving.spec import ModelSpec, folders, read_spec

OBJECT_STORE_BYTES = 80 * 2**20  # nothing passes through it; Ray insists on 75 MiB
POLL_S = 0.5
CONTROLLER_SILENCE_S = 30.0

Report = Callable[[str], None]


class ClusterFailed(Exception):
    """A part is gone or a model cannot start. Its message is one sentence for the person at the terminal."""


def main() -> int:
    """Runs until SIGTERM or until something fails."""
    die_with_parent()
    supervisor = os.getppid()
    report_file = os.fdopen(int(sys.argv[1]), "w", buffering=1)
    os.set_inheritable(report_file.fileno(), False)  # or every Ray process would hold the supervisor's pipe open
    settings = ServingSettings.model_validate_json(sys.stdin.read())
    stop = threading.Event()

    def report(line: str) -> None:
        with suppress(BrokenPipeError):  # the supervisor was killed; we still end in order
            report_file.write(f"{line}\n")

    def on_signal(signum: int, frame: FrameType | None) -> None:
        stop.set()

    def listen_for_signals() -> None:
        signal.signal(signal.SIGTERM, on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    listen_for_signals()
    try:
        _start_ray(settings, [read_spec(model, *folders(settings.catalog_dir)) for model in settings.models], report)
        listen_for_signals()  # ray.init installs its own
        _serve_until(stop, settings, report)
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
    needed = sum(spec.cpus * most_replicas(spec, settings) for spec in specs)
    try:
        ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, int(needed) + 1),
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
        raise ClusterFailed(f"Ray does not start: {_one_line(error)}") from error
    report(f"Ray: ready, REST API at http://{settings.dashboard_host}:{settings.dashboard_port}")


def _serve_until(stop: threading.Event, settings: ServingSettings, report: Report) -> None:
    threading.Thread(target=_end_with_parts, args=(_cluster_parts(), stop, report), daemon=True).start()
    report("Ray Serve: starting")
    serve.start(
        proxy_location=ProxyLocation.HeadOnly,
        http_options=HTTPOptions(host=settings.host, port=settings.proxy_port),
        logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
    )
    for model in settings.models:
        spec = read_spec(model, *folders(settings.catalog_dir))
        report(f"{model}: starting {replica_count(spec, settings)} of {spec.architecture}")
        app = build_app(spec, settings)
        serve.run_many([serve.RunTarget(app, name=spec.id, route_prefix=f"/{spec.id}")], wait_for_applications_running=False)
    began = last_heard = time.monotonic()
    said: dict[str, str] = {}
    while not stop.wait(POLL_S):
        try:
            status = serve.status()
        except (RayServeException, ray.exceptions.RayError) as error:
            if time.monotonic() - last_heard > CONTROLLER_SILENCE_S:
                raise ClusterFailed(f"Ray Serve's controller does not answer: {_one_line(error)}") from error
            continue
        last_heard = time.monotonic()
        for app_name, line in _lines(status, last_heard - began):
            if said.get(app_name, "").split(" after ")[0] != line.split(" after ")[0]:
                said[app_name] = line
                report(line)
    report("stopping: running answers may finish")


def _end_with_parts(parts: Mapping[str, psutil.Process], stop: threading.Event, report: Report) -> None:
    """Ends this process when a part is gone. In a thread of its own, because Ray's calls then hang for minutes."""
    while not stop.wait(POLL_S):
        if gone := [name for name, process in parts.items() if not is_alive(process)]:
            report(f"{gone[0]} of Ray has ended, and with it everything else")
            os._exit(1)


def _lines(status: ServeStatus, elapsed_s: float) -> Iterator[tuple[str, str]]:
    """What to say about each app. Raises ClusterFailed for one that failed for good."""
    for name, app in status.applications.items():
        if app.status is ApplicationStatus.DEPLOY_FAILED:
            raise ClusterFailed(f"{name} cannot be started: {_cause(app)}")
        states = ", ".join(
            f"{count} {state.lower()}"
            for deployment in app.deployments.values()
            for state, count in deployment.replica_states.items()
            if count
        )
        yield name, f"{name}: {app.status.lower()} ({states or 'no replicas'}) after {elapsed_s:.0f} s"


def _cause(app: ApplicationStatusOverview) -> str:
    """The sentence inside Serve's message, without the traceback around it; if it only points at the engine's log, that log's."""
    text = "\n".join([app.message, *(deployment.message for deployment in app.deployments.values())])
    sentence = _last_error(text) or text
    if "See root cause above" in sentence:
        logs = Path(os.environ["TMPDIR"]).glob("session_2*/logs/worker-*.err")
        engine = "\n".join(line for log in logs for line in log.read_text(errors="replace").splitlines() if "EngineCore" in line)
        sentence = _last_error(engine) or sentence
    return _one_line(sentence)


def _last_error(text: str) -> str | None:
    """What follows the last `SomeError: ` in a log or traceback."""
    found = re.findall(r"\w+(?:Error|Exception|Failed): (.+)", text)
    return found[-1] if found else None


def _one_line(what: object) -> str:
    return " ".join(str(what).split())[:500]


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
            report(f"Ray Serve did not end in order: {_one_line(error)}")
        ray.shutdown()


if __name__ == "__main__":
    sys.exit(main())
