"""From a spec to a Serve application: one deployment, one app a model, because direct ingress gives each app its own targets.

Not here: starting Ray or Serve (`cluster.py`), and what a replica does (`replica.py`).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from serving.autoscaling.ray_policy import DemandPolicy
from serving.autoscaling.terms import POLICYS, least_replicas, most_replicas, replica_count, terms
from serving.placement import Accelerators, grant
from serving.replica import Device, Replica, engine_args, frontend_args
from serving.settings import ServingSettings
from serving.spec import ModelSpec

HEALTH_CHECK_PERIOD_S = 1.0
# The engine's own queue bound decides, and answers in OpenAI's shape; Serve's must never be reached first.
UNBOUNDED = 1_000_000


def build_app(
    spec: ModelSpec, settings: ServingSettings, accelerators: Accelerators | None = None, *, surge_percent: int = 0
) -> Application:
    """The application for one model; to be run under the name `spec.id` and the route `/<id>`. Raises ValueError."""
    device = choose_device(settings)
    given = grant(spec, accelerators)
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name="engine",
        **replica_options(spec, settings),
        ray_actor_options={"num_cpus": spec.cpus, **given.actor_options},
        max_surge_percent=surge_percent,
        max_ongoing_requests=UNBOUNDED,
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=settings.drain_s,
        graceful_shutdown_wait_loop_s=0.5,
    )
    # Serve would give each request for an application a version of its own, and restart replicas that are told nothing new.
    versioned = deployment.options(version=_version(spec, device, given.engine_args), _internal=True)
    return versioned.bind(spec, device, given.engine_args)


def _version(spec: ModelSpec, device: Device, share: Mapping[str, int | float]) -> str:
    """What vLLM is told, as a short word: replicas of one version are alike."""
    told = [engine_args(spec, device, share), frontend_args(spec), spec.engine.enforce_eager, device]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def replica_options(spec: ModelSpec, settings: ServingSettings) -> dict[str, Any]:
    """A fixed number of replicas, or one that follows what the gateway is asked. Raises ValueError."""
    wanted, count = settings.autoscaling, replica_count(spec, settings)
    if not wanted.enabled or least_replicas(spec, settings) == most_replicas(spec, settings):
        return {"num_replicas": count}
    capacity, bounds = terms(spec, settings)
    if wanted.demand_url is None:
        raise ValueError("autoscaling needs demand_url, the address of the gateway's /internal/demand")
    policy = AutoscalingPolicy(
        policy_function=DemandPolicy,
        policy_kwargs={
            "model": spec.id,
            "demand_url": wanted.demand_url,
            "capacity": asdict(capacity),
            "bounds": wanted.model_dump(include=set(POLICYS)),
        },
    )
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=bounds.least,
            initial_replicas=count,
            max_replicas=bounds.most,
            policy=policy,
            # The policy does its own smoothing and waiting.
            upscale_delay_s=0.0,
            downscale_delay_s=0.0,
            downscale_to_zero_delay_s=0.0,
        )
    }


def choose_device(settings: ServingSettings) -> Device:
    """`auto` means a GPU only where both the driver and vLLM's GPU build are there."""
    if settings.device != "auto":
        return settings.device
    has_gpu_build = any(True for _ in metadata.distributions(name="vllm"))
    return "gpu" if has_gpu_build and Path("/dev/nvidiactl").exists() else "cpu"
