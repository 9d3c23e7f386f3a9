"""What a person sees while things start: one line a step with the time so far, and on a terminal a moving last line."""

from __future__ import annotations

import threading
import time

from rich.console import Console
from rich.status import Status


class Progress:
    """`say` may be called from any thread. Use as `with`: at its end it falls silent."""

    TELL_EVERY_S = 15.0

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._status: Status | None = None
        self._last = ""
        self._stopped = threading.Event()
        threading.Thread(target=self._tick, daemon=True).start()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def say(self, part: str, line: str) -> None:
        with self._lock:
            self._last = line
            self.console.print(f"{self.elapsed_s:5.0f} s  {part:<8} {line}", markup=False)

    def stop(self) -> None:
        """No more moving line; `say` still works."""
        self._stopped.set()
        if self._status is not None:
            self._status.stop()

    def _tick(self) -> None:
        """A terminal gets a moving clock; a log gets a sign of life now and then."""
        if self.console.is_terminal:
            self._status = self.console.status("starting")
            self._status.start()
            while not self._stopped.wait(1.0):
                self._status.update(f"{self.elapsed_s:.0f} s so far; usually ready within 75 s. {self._last}")
            return
        while not self._stopped.wait(self.TELL_EVERY_S):
            self.say("up", f"still at: {self._last}" if not self._last.startswith("still at") else self._last)
