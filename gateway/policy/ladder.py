"""The overload ladder: up at once, down one step after the other."""

from __future__ import annotations

import math

from gateway.policy.demand import Step

_STEPS = (Step.NONE, Step.BATCH_WAITS, Step.OUTPUT_CAPPED, Step.FALL_BACK, Step.REJECTING)
_CAPPED_SHARE, _FALL_BACK_SHARE = 0.25, 0.5  # of the patience, that the queue takes
_SUSTAINED_S = 2.0  # as long as others than batch calls have waited
_REJECTING_S = 5.0  # since the last rejection
_HOLDS_S = 2.0  # each step, on the way down


class Ladder:
    def __init__(self) -> None:
        self._step = 0
        self._since = 0.0
        self._rejected_at = -math.inf
        self._pressed_since = math.inf

    def rejected(self, now: float) -> None:
        self._rejected_at = now

    def press(self, is_pressed: bool, now: float) -> None:
        """Whether others than batch calls wait."""
        if not is_pressed:
            self._pressed_since = math.inf
        elif self._pressed_since == math.inf:
            self._pressed_since = now

    def step(self, is_waiting: bool, patience_share: float, now: float) -> Step:
        """Whether anybody waits, and how much of its patience a call that comes now needs."""
        step = self._wanted(is_waiting, patience_share, now)
        if step >= self._step:
            self._step, self._since = step, now
        elif now >= self._since + _HOLDS_S:
            self._step, self._since = self._step - 1, now
        return _STEPS[self._step]

    def _wanted(self, is_waiting: bool, patience_share: float, now: float) -> int:
        if now < self._rejected_at + _REJECTING_S:
            return 4
        if not is_waiting:
            return 0
        if now < self._pressed_since + _SUSTAINED_S or patience_share < _CAPPED_SHARE:
            return 1
        return 3 if patience_share >= _FALL_BACK_SHARE else 2
