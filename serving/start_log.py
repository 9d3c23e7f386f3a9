"""How long each part of a replica's start takes: its processes write it down, and `daemun serve` says it.

A file a replica in the run's directory, a line a part, because a start spans processes: the replica's own, and the engine's in
which weights are loaded. Without a run's directory nothing is written.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_VARIABLE = "SERVING_START_LOG"  # inherited by the engine's process
_LAST = "server"  # the part after which a replica takes calls


@dataclass(frozen=True, slots=True)
class Part:
    """Times are seconds since the epoch: different processes write them."""

    name: str
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Start:
    """A start that is over. Some parts lie within others: `model`, `cache` and `warm-up` within `engine`."""

    model: str
    parts: tuple[Part, ...]

    def sentence(self) -> str:
        parts = sorted(self.parts, key=lambda part: part.began)
        whole_s = max(part.ended for part in parts) - parts[0].began
        said = ", ".join(f"{part.name} {part.ended - part.began:.1f}" for part in parts)
        return f"{self.model}: a replica started in {whole_s:.1f} s ({said})"


def begin(model: str) -> None:
    """What this process and its children write from here on is of the start of one replica of this model."""
    if run_dir := os.environ.get("TMPDIR"):
        folder = _folder(Path(run_dir))
        folder.mkdir(exist_ok=True)
        os.environ[_VARIABLE] = str(folder / f"{model}@{os.getpid()}.jsonl")


@contextmanager
def part(name: str) -> Iterator[None]:
    """The block is a part of the start; one that fails is not written down."""
    began = time.time()
    yield
    if path := os.environ.get(_VARIABLE):
        line = json.dumps({"name": name, "began": began, "ended": time.time()})
        with open(path, "a") as file:
            file.write(f"{line}\n")


class Starts:
    """Reads what replicas have written below a run's directory."""

    def __init__(self, run_dir: Path) -> None:
        self._folder = _folder(run_dir)
        self._told: set[Path] = set()

    def over(self) -> Iterator[Start]:
        """Those that are over since the last call."""
        for path in sorted(set(self._folder.glob("*.jsonl")) - self._told):
            parts = tuple(Part(**json.loads(line)) for line in path.read_text().splitlines())
            if any(part.name == _LAST for part in parts):
                self._told.add(path)
                yield Start(path.name.rpartition("@")[0], parts)


def _folder(run_dir: Path) -> Path:
    return run_dir / "starts"
