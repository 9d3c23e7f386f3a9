"""Compiles the gateway's hot path; `scripts/compile` runs it with the compiler's own Python, in the project's folder.

usage: compile_modules.py FOLDER PYTHON     where the build goes; the Python whose packages tell the types
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mypyc.build import mypycify
from setuptools import Distribution
from setuptools.command.build_ext import build_ext

sys.path.insert(0, ".")
from gateway.compiled import MODULES, digest

NAME = "daemun_gateway"  # of the one library that holds all of the modules


class BuildExt(build_ext):
    """Every C file a process of its own: there are dozens, and setuptools takes one after the other."""

    def build_extensions(self) -> None:
        one_after_the_other = self.compiler.compile

        def all_at_once(sources: list[str], **options: Any) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = pool.map(lambda source: one_after_the_other([source], **options), sources)
                return [name for names in objects for name in names]

        self.compiler.compile = all_at_once
        super().build_extensions()


def main(folder: Path, python: str) -> None:
    if folder.name != digest():
        sys.exit("The gateway in that environment is a copy of other sources: run scripts/setup for it again.")
    sources = [module.replace(".", "/") + ".py" for module in MODULES]
    with tempfile.TemporaryDirectory() as work:
        options = ["--config-file=", f"--python-executable={python}", f"--cache-dir={work}/mypy", "--ignore-missing-imports"]
        extensions = mypycify([*options, *sources], group_name=NAME, multi_file=True, debug_level="0", target_dir=f"{work}/c")
        command = BuildExt(Distribution({"name": NAME, "ext_modules": extensions}))
        command.build_lib, command.build_temp = f"{work}/lib", f"{work}/objects"
        command.ensure_finalized()
        command.run()
        _put(Path(work, "lib"), folder)


def _put(built: Path, folder: Path) -> None:
    """Under module names, all in one folder, which gets its name when it is whole; builds of other sources go."""
    new = folder.with_suffix(f".{os.getpid()}")
    new.mkdir(parents=True)
    for file in built.rglob("*.so"):
        shutil.move(file, new / ".".join(file.relative_to(built).parts))
    for other in folder.parent.iterdir():
        if other != new:
            shutil.rmtree(other)
    new.rename(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
