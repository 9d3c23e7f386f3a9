"""Between how many replicas a model is scaled and by which figures: the catalogue's, unless the operator says otherwise."""

from __future__ import annotations

from serving.autoscaling.policy import Bounds, Capacity
from serving.settings import ServingSettings
from serving.spec import ModelSpec

POLICYS = ("use", "spreads", "clear_s", "hold_s", "idle_s", "stale_s")  # of the bounds, what the settings have for all models


def replica_count(spec: ModelSpec, settings: ServingSettings) -> int:
    """How many replicas to start with: the operator's word, else the catalogue's."""
    return settings.replicas.get(spec.id, spec.replicas.count)


def most_replicas(spec: ModelSpec, settings: ServingSettings) -> int:
    """How many there may be at once."""
    count = replica_count(spec, settings)
    return settings.autoscaling.most.get(spec.id, max(count, spec.replicas.max)) if settings.autoscaling.enabled else count


def least_replicas(spec: ModelSpec, settings: ServingSettings) -> int:
    """How few."""
    if not settings.autoscaling.enabled:
        return replica_count(spec, settings)
    return settings.autoscaling.least.get(spec.id, spec.replicas.min)


def terms(spec: ModelSpec, settings: ServingSettings) -> tuple[Capacity, Bounds]:
    """What the policy needs to know of a model that is scaled. Raises ValueError."""
    least, count, most = least_replicas(spec, settings), replica_count(spec, settings), most_replicas(spec, settings)
    if not 0 <= least <= count <= most:
        raise ValueError(f"{spec.id} needs autoscaling.least <= replicas <= autoscaling.most, not {least} <= {count} <= {most}")
    if spec.speed is None:
        raise ValueError(f"{spec.id} cannot be scaled: its catalogue entry has no speed; add one, or set least and most alike")
    capacity = Capacity(tokens_per_s=spec.speed.tokens_per_s, cold_start_s=spec.speed.cold_start_s)
    return capacity, Bounds(least=least, most=most, **settings.autoscaling.model_dump(include=set(POLICYS)))
