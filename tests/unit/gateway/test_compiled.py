"""A build is used for the sources that it was made of, and for no others."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from gateway import compiled

SAY = "from gateway import compiled; print(compiled.is_running())"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the gateway's sources, and something that stands for a build of them."""
    copy = tmp_path / "gateway"
    shutil.copytree(compiled.PACKAGE, copy, ignore=shutil.ignore_patterns("_builds", "__pycache__"))
    build = copy / "_builds" / compiled.digest()
    build.mkdir(parents=True)
    (build / f"gateway.no_module_of_ours{EXTENSION_SUFFIXES[0]}").touch()
    return copy


def says(package: Path, asked: str = "") -> str:
    environment = {**os.environ, compiled.ASKED: asked, "PYTHONPATH": str(package.parent)}
    done = subprocess.run(
        [sys.executable, "-c", SAY], env=environment, cwd=package.parent, capture_output=True, text=True, timeout=60
    )
    return (done.stdout or done.stderr).strip().splitlines()[-1]


def test_build_of_these_sources_is_used_unless_told_otherwise(package: Path) -> None:
    assert says(package) == "True"
    assert says(package, "must") == "True"
    assert says(package, "no") == "False"


def test_edited_source_is_never_hidden_by_its_build(package: Path) -> None:
    edited = package / "policy" / "routing.py"
    before = edited.read_text()
    edited.write_text(before + "\n# another thought\n")
    assert says(package) == "False"
    edited.write_text(before)
    assert says(package) == "True"


def test_who_must_have_a_build_and_has_none_is_told_what_to_do(package: Path) -> None:
    shutil.rmtree(package / "_builds")
    assert says(package) == "False"
    assert "Run scripts/compile" in says(package, "must")


def test_wish_that_is_not_known_is_refused_and_not_passed_over(package: Path) -> None:
    assert "Set it to no (plain Python) or must" in says(package, "yes")


@pytest.mark.parametrize("module", compiled.MODULES)
def test_compiled_modules_have_no_classes_that_msgspec_would_have_to_read(module: str) -> None:
    tree = ast.parse((compiled.PACKAGE.parent / (module.replace(".", "/") + ".py")).read_text())
    bases = [ast.unparse(base) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases]
    assert not [base for base in bases if base.endswith("Struct")]
