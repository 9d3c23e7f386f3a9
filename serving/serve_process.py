"""Where `daemun reload` finds the `daemun serve` of the same state_dir: a file with its process id, and when that began.

An id alone would not do: after a crash the file stays, and the id may be another program's by then.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


@contextmanager
def announced(state_dir: Path) -> Iterator[None]:
    """For as long as the block, this process can be found."""
    path = _path(state_dir)
    path.write_text(f"{os.getpid()} {psutil.Process().create_time()}\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def find(state_dir: Path) -> psutil.Process | None:
    """The `daemun serve` that runs with this state_dir."""
    try:
        pid, began = _path(state_dir).read_text().split()
        process = psutil.Process(int(pid))
        return process if process.create_time() == float(began) else None
    except (OSError, ValueError, psutil.NoSuchProcess):
        return None


def _path(state_dir: Path) -> Path:
    return state_dir / "serve.pid"
