"""The policies that daemun's is compared with, each as an `Autoscaler` of the simulator. Pure: what the gateway tells, a number.

Ray Serve's default is Ray's own arithmetic, called (`ray_default`). Here are Kubernetes' horizontal autoscaler as KEDA drives it,
from the documented formulas, and an oracle that is told the arrivals before they come.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from serving.simulator.autoscaler import Signal, Subject

_SYNC_S = 15.0  # --horizontal-pod-autoscaler-sync-period
_TOLERANCE = 0.1  # --horizontal-pod-autoscaler-tolerance
_DOWN_WINDOW_S = 300.0  # behavior.scaleDown.stabilizationWindowSeconds; upwards it is 0
_UP_PODS, _UP_TIMES, _UP_PERIOD_S = 4, 2, 15.0  # behavior.scaleUp: 4 pods or 100 percent within 15 s, whichever is more


@dataclass(frozen=True, slots=True)
class KedaRules:
    """target: calls a replica, as an AverageValue. with_running: of waiting and running calls together, not of waiting ones only.
    cooldown_s: KEDA's cooldownPeriod, after which the last replica goes where there may be none.
    """

    target: float
    with_running: bool = False
    cooldown_s: float = 300.0


class Keda:
    """A HorizontalPodAutoscaler on an external metric, with a ScaledObject's way from zero and to it.

    Everything that is not said by the rules is at its documented default. Kinder than the real one: its figure is never late.
    """

    def __init__(self, subject: Subject, rules: KedaRules) -> None:
        self._subject, self._rules = subject, rules
        self._synced_at = -math.inf
        self._advised: list[tuple[float, int]] = []  # within the window for scaling down
        self._grown: list[tuple[float, int]] = []  # within the period for scaling up
        self._active_at = -math.inf

    def decide(self, signal: Signal, current: int, now: float) -> int:
        asked = signal.waiting + (signal.running if self._rules.with_running else 0)
        if asked > 0:
            self._active_at = now
        if self._subject.least == 0 and asked == 0 and now - self._active_at >= self._rules.cooldown_s:
            return 0
        if current == 0:
            return 1
        if now - self._synced_at < _SYNC_S:
            return current
        self._synced_at = now
        target = self._limited(self._steadied(self._advice(asked, current), current, now), current, now)
        if target > current:
            self._grown.append((now, target - current))
        return target

    def _advice(self, asked: float, current: int) -> int:
        if abs(asked / (self._rules.target * current) - 1.0) <= _TOLERANCE:
            return current
        return math.ceil(asked / self._rules.target)

    def _steadied(self, advice: int, current: int, now: float) -> int:
        """Down only to the most that was advised in the window."""
        kept = [(at, count) for at, count in self._advised if now - at < _DOWN_WINDOW_S]
        self._advised = [*kept, (now, advice)]
        return max(advice, min(current, max(count for _, count in self._advised)))

    def _limited(self, wanted: int, current: int, now: float) -> int:
        self._grown = [(at, count) for at, count in self._grown if now - at < _UP_PERIOD_S]
        before = current - sum(count for _, count in self._grown)
        fastest = max(before + _UP_PODS, before * _UP_TIMES)
        return min(max(min(wanted, max(fastest, current)), max(1, self._subject.least)), self._subject.most)


class Oracle:
    """Knows what will be asked, and when: as many replicas as the coming calls need, started just so early that they are ready.

    arrivals   when each call comes, and the tokens of its prompt and answer
    use        of a replica's speed that it plans with
    window_s   what comes within it is to be done within it

    It does not look at the fleet, so it does not mend what a lost replica spoils; and it is not the least possible.
    """

    def __init__(self, subject: Subject, arrivals: Iterable[tuple[float, float]], use: float, window_s: float) -> None:
        self._subject, self._window_s = subject, window_s
        tokens: defaultdict[int, float] = defaultdict(float)
        for at, asked in arrivals:
            tokens[int(at // window_s)] += asked
        self._needed = {at: math.ceil(asked / (window_s * use * subject.tokens_per_s) - 1e-9) for at, asked in tokens.items()}

    def decide(self, signal: Signal, current: int, now: float) -> int:
        """The most that is needed from now until a replica that is started now is ready."""
        first, last = int(now // self._window_s), int((now + self._subject.cold_start_s) // self._window_s)
        most = max(self._needed.get(at, 0) for at in range(first, last + 1))
        return min(max(most, self._subject.least), self._subject.most)
