"""Engines by name: the figures in `engines/known`, each file with where they come from."""

from __future__ import annotations

from pathlib import Path

import yaml

from engines.model import EngineFigures

FOLDER = Path(__file__).with_name("known")


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str) -> EngineFigures:
    """Raises ValueError for an engine that there is not."""
    if name not in names():
        raise ValueError(f"there is no engine {name!r}; there are {', '.join(names())}")
    return EngineFigures(**yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))["figures"])
