"""The machine's own clock."""

from __future__ import annotations

import time


class SystemClock:
    monotonic = staticmethod(time.monotonic)  # asked ten times a call, so without a step between
    time = staticmethod(time.time)
