"""Ray Serve's signature around `policy`: Serve's controller constructs this once a deployment and calls it a few times a second.

The controller runs everything of Serve, so nothing here may take time or raise: a thread asks the gateway (`signal`), the call
only looks at what it said last, and whatever goes wrong, the fleet stays as it is.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from ray.serve.config import AutoscalingContext

from serving.autoscaling.policy import Bounds, Capacity, State, desired_replicas
from serving.autoscaling.signal import Signal

logger = logging.getLogger("ray.serve")


class DemandPolicy:
    """Keyword arguments come as JSON from `serving.app`: the model, the gateway's address, and the fields of Capacity and Bounds
    but for `least` and `most`, which Serve has.
    """

    def __init__(self, *, model: str, demand_url: str, capacity: dict[str, float], bounds: dict[str, float]) -> None:
        self._model = model
        self._capacity = Capacity(**capacity)
        self._bounds = bounds
        self._signal = Signal(demand_url)
        self._state = State()
        self._said = ""

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        bounds = Bounds(
            least=context.capacity_adjusted_min_replicas,
            most=context.capacity_adjusted_max_replicas,
            **self._bounds,
        )
        current = context.target_num_replicas
        decision = desired_replicas(
            self._signal.demand(self._model), self._capacity, bounds, self._state, current=current, now=time.monotonic()
        )
        self._state = decision.state
        if decision.replicas != current:
            logger.warning("%s: from %d to %d replicas (%s)", self._model, current, decision.replicas, decision.reason)
        return decision.replicas, {"reason": decision.reason}
