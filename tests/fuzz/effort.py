"""How many cases each fuzz target gets, and what came of it. `make fuzz` sets FUZZ_CASES; without it a run takes seconds.

Cases are spread over the targets by their share. Found failures stay in .hypothesis/ and are tried first the next time.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis.database import DirectoryBasedExampleDatabase

from tests.fakes import VirtualLoop

WANTED = int(os.environ.get("FUZZ_CASES", "0"))
_SHORT = 1_600
_PROGRESS_S = 5.0
Test = TypeVar("Test", bound=Callable[..., None])

settings.register_profile(
    "fuzz",
    deadline=None,
    derandomize=False,
    database=DirectoryBasedExampleDatabase(".hypothesis/examples"),
    suppress_health_check=list(HealthCheck),
    # Explaining a failure runs it a hundred times more; the shrunk example says enough.
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.target, Phase.shrink),
)

cases: dict[str, int] = {}


def fuzz(percent: int) -> Callable[[Test], Test]:
    """Put above `@given`: this target gets so many hundredths of the cases, counts them, and says now and then how far it is."""
    most = math.ceil((WANTED or _SHORT) * percent / 100)

    def of(test: Test) -> Test:
        name = test.__name__.removeprefix("test_")
        hypothesis: Any = test.hypothesis  # type: ignore[attr-defined]  # what `@given` leaves for such as us
        hypothesis.inner_test = _counted(name, most, hypothesis.inner_test)
        return settings(settings.get_profile("fuzz"), max_examples=most)(test)

    return of


def _counted(name: str, most: int, run: Callable[..., None]) -> Callable[..., None]:
    began = said = 0.0

    @wraps(run)
    def counting(*args: object, **kwargs: object) -> None:
        nonlocal began, said
        now = time.monotonic()
        began, said = began or now, said or now
        cases[name] = cases.get(name, 0) + 1
        if WANTED and now - said >= _PROGRESS_S:
            said = now
            print(f"fuzz [{now - began:4.0f} s] {name}: {cases[name]:,} of {most:,}", flush=True)  # noqa: T201
        run(*args, **kwargs)

    return counting


def in_virtual_time(running: Coroutine[Any, Any, None]) -> None:
    """Run one case in a loop of its own, in which waiting takes no time; a wait for nothing fails."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(running)
