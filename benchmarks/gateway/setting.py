"""Where, when and with what figures came about."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Setting:
    """`versions` by gateway, in the order of the tables; `seconds` is one run's length."""

    date: str
    machine: str
    command: str
    rounds: int
    seconds: float
    versions: Mapping[str, str]


def machine() -> str:
    """Cores, processor, memory and system, in one line."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")), "")
    kernel = platform.release().partition("-")[0]
    memory = f"{psutil.virtual_memory().total / 2**30:.0f} GiB"
    return f"{psutil.cpu_count()} cores ({model or platform.machine()}), {memory}, {platform.system()} {kernel}"


def commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 (no input in it)
    except (OSError, subprocess.CalledProcessError):
        return "no commit known"
    return done.stdout.strip()
