"""`daemun autoscaler`: the number of replicas each model should have, as a metric for HPA and KEDA."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

from daemun.problem import Problem
from daemun.settings import Settings
from serving.autoscaling.advice import Adviser
from serving.autoscaling.exporter import Exporter
from serving.autoscaling.terms import least_replicas, most_replicas, terms
from serving.spec import SpecError, folders, read_spec


def run(settings: Settings, host: str, port: int, say: Callable[[str], None]) -> None:
    """Until SIGINT or SIGTERM. Raises Problem."""
    url = settings.demand_url()
    if url is None:
        raise Problem("Nobody says where the gateway is. Set serving.autoscaling.demand_url to its address and /internal/demand.")
    advisers = advisers_of(settings)
    if not advisers:
        raise Problem(
            "No model is to be scaled. Set serving.autoscaling.enabled: true, and give a model more at most than at least "
            "(serving.autoscaling.most)."
        )
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    try:
        with Exporter(host, port, url, advisers) as exporter:
            where = f"http://{host}:{exporter.port}/metrics"
            say(f"Asks {url}; {where} tells how many replicas {', '.join(advisers)} should have.")
            exporter.wait()
    except OSError as error:
        raise Problem(f"Nothing can listen at {host}:{port} ({error.strerror}). Choose another --port.") from error
    except KeyboardInterrupt:
        say("stopped")


def advisers_of(settings: Settings) -> dict[str, Adviser]:
    """By model id, of those that may have more or fewer replicas. Raises Problem."""
    found = {}
    for model in settings.serving.models:
        try:
            spec = read_spec(model, *folders(settings.serving.catalog_dir))
            if least_replicas(spec, settings.serving) < most_replicas(spec, settings.serving):
                found[model] = Adviser(model, *terms(spec, settings.serving))
        except (SpecError, ValueError) as error:
            raise Problem(str(error)) from error
    return found


def _stop(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
