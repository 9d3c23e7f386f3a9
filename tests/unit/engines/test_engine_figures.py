"""Engines by name."""

from __future__ import annotations

import pytest

from engines import figures as engine_figures


@pytest.mark.parametrize("name", engine_figures.names())
def test_every_engine_that_is_kept_can_be_used(name: str) -> None:
    figures = engine_figures.load(name)
    assert 0.1 < figures.calls_per_s(300, 150) < 1000


def test_engine_that_there_is_not_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"'h200'; there are demo-cpu, h100-8b"):
        engine_figures.load("h200")
