"""Ray Serve's default autoscaling policy as an `Autoscaler` of the simulator: Ray's own functions, called, in the pinned version.

Around them is what Serve's controller does: the mean of the calls over the look-back period, the policy's memory, the bounds.
Kinder than the real thing in two ways: its figures are never late (Serve's come every 10 s), and it sees the calls that wait in
the gateway, which Serve behind a gateway does not.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from ray.serve import autoscaling_policy as ray
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from serving.simulator.autoscaler import Signal, Subject


class RayDefault:
    """`target`: Serve's target_ongoing_requests. Everything else is at Serve's defaults."""

    def __init__(self, subject: Subject, target: float, look_back_s: float = 30.0) -> None:
        self._least, self._most = subject.least, subject.most
        self._look_back_s = look_back_s
        self._config = AutoscalingConfig(
            min_replicas=subject.least,
            max_replicas=subject.most,
            initial_replicas=subject.start,
            target_ongoing_requests=target,
            look_back_period_s=look_back_s,
        )
        self._recent: deque[tuple[float, int]] = deque()  # when, how many calls from then on
        self._memory: dict[str, Any] = {}

    def decide(self, signal: Signal, current: int, now: float) -> int:
        context = self._context(self._mean(signal.waiting + signal.running, now), signal.ready, current)
        wanted = self._wanted(context, now)
        return min(max(wanted, self._least), self._most)

    def _wanted(self, context: AutoscalingContext, now: float) -> int:
        """The steps of Ray's `_apply_autoscaling_config`, whose only fault is that it looks at the clock itself."""
        fast = ray._get_cold_start_scale_up_replicas(context)
        if fast is not None:
            return int(fast)
        raw, _ = ray.replica_queue_length_autoscaling_policy(context)
        scaled = ray._apply_scaling_factors(raw, context.current_num_replicas, self._config)
        if context.current_num_replicas == 0 and scaled > 0:
            return int(scaled)
        wanted, self._memory = ray._apply_delay_logic(
            max(0, scaled), context.target_num_replicas, self._config, dict(self._memory), _now=now
        )
        return int(wanted)

    def _context(self, calls: float, ready: int, target: int) -> AutoscalingContext:
        return AutoscalingContext(
            deployment_id=None,
            deployment_name="engine",
            app_name=None,
            current_num_replicas=ready,
            target_num_replicas=target,
            running_replicas=[],
            total_num_requests=calls,
            total_queued_requests=None,
            aggregated_metrics=None,
            raw_metrics=None,
            capacity_adjusted_min_replicas=self._least,
            capacity_adjusted_max_replicas=self._most,
            policy_state=self._memory,
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=None,
            config=self._config,
        )

    def _mean(self, calls: int, now: float) -> float:
        """Of the calls over the look-back period, each figure counting until the next."""
        self._recent.append((now, calls))
        begin = now - self._look_back_s
        while len(self._recent) > 1 and self._recent[1][0] <= begin:
            self._recent.popleft()
        spans = zip(self._recent, [*list(self._recent)[1:], (now, 0)], strict=True)
        whole = now - max(begin, self._recent[0][0])
        if whole <= 0.0:
            return float(calls)
        return sum(count * (until - max(begin, at)) for (at, count), (until, _) in spans) / whole
