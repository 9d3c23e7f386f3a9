"""Ray Serve's signature around `policy`: Serve's controller constructs this once a deployment and calls it a few times a second.

The controller runs everything of Serve, so nothing here may take time or raise: a thread asks the gateway, the call only looks
at what it said last, and whatever goes wrong, the fleet stays as it is.
"""

from __future__ import annotations

import logging
import threading
import time
import urllib.error
import urllib.request
import weakref
from typing import Any

from ray.serve.config import AutoscalingContext

from serving.autoscaling.demand import Demand, UnreadableDemand, read_demand
from serving.autoscaling.policy import Bounds, Capacity, State, desired_replicas

logger = logging.getLogger("ray.serve")

_ASK_EVERY_S = 1.0
_ANSWER_S = 2.0
_MOST_BYTES = 4 << 20


class Signal:
    """What the gateway said last. A thread of its own asks, until nobody holds this object any more."""

    def __init__(self, url: str) -> None:
        self._said: tuple[bytes, float] | None = None
        self._problem = ""
        threading.Thread(target=_ask, args=(url, weakref.ref(self)), daemon=True, name="daemun-demand").start()

    def hear(self, answer: bytes, at: float) -> None:
        if self._problem:
            logger.warning("The gateway says again what is asked of the models.")
        self._said, self._problem = (answer, at), ""

    def fail(self, problem: str) -> None:
        if not self._problem:
            logger.warning("The number of replicas stays as it is: the gateway does not say what is asked (%s).", problem)
        self._problem = problem

    def demand(self, model: str) -> Demand | None:
        """The last that was said of this model, with the monotonic time of its coming; None: nothing that can be read."""
        if self._said is None:
            return None
        try:
            return read_demand(self._said[0], model, self._said[1])
        except UnreadableDemand as problem:
            self.fail(str(problem))
            return None


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


def _ask(url: str, signal: weakref.ref[Signal]) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the gateway is near; no proxy of the environment's
    while (hearer := signal()) is not None:
        try:
            with opener.open(url, timeout=_ANSWER_S) as answer:
                hearer.hear(answer.read(_MOST_BYTES), time.monotonic())
        except (OSError, urllib.error.URLError, ValueError) as problem:
            hearer.fail(str(problem))
        del hearer
        time.sleep(_ASK_EVERY_S)
