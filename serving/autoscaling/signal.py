"""What the gateway says is asked, heard in the background: whoever decides never waits for it."""

from __future__ import annotations

import logging
import threading
import time
import urllib.error
import urllib.request
import weakref

from serving.autoscaling.demand import Demand, UnreadableDemand, read_demand

logger = logging.getLogger("ray.serve")  # where Serve's controller looks for what its parts have to say

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
