"""The one directory below temp_root that a run has: Ray's session, sockets, logs.

It is named after the process it belongs to, so that a run that was killed before it could tidy up is recognised, by its
supervisor or by the next run, and removed.
"""

import os
import shutil
import tempfile
from pathlib import Path

import psutil

_PREFIX = "daemun-"


def make(root: Path) -> Path:
    """A new directory that belongs to this process."""
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=root))


def settings_path(run_dir: Path) -> Path:
    """Where a run's supervisor writes the settings, and new ones before it asks for a reload."""
    return run_dir / "settings.json"


def remove_abandoned(root: Path) -> list[Path]:
    """Remove the directories whose process is gone. Returns them."""
    abandoned = [path for path in root.glob(f"{_PREFIX}*-*") if _is_abandoned(path)]
    for path in abandoned:
        shutil.rmtree(path, ignore_errors=True)
    return abandoned


def _is_abandoned(path: Path) -> bool:
    pid = path.name.removeprefix(_PREFIX).split("-")[0]
    return pid.isdigit() and not psutil.pid_exists(int(pid))
