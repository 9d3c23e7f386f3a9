"""The hot path runs compiled, by mypyc, where `scripts/compile` has been: which modules, where their builds lie, who finds them.

The sources stay what they are, typed Python, and run as such wherever there is no build. A build lies in a folder named for the
exact sources it was made of, so an edited file is never hidden by what was made of it before: all is plain Python then, until it
is compiled anew. DAEMUN_COMPILED=no asks for plain Python, DAEMUN_COMPILED=must for an error where there is no build.

What a compiled module may not have: msgspec.Struct classes (msgspec reads annotations, which compiled classes do not keep), bytes
sliced by a slice object, and `sum` over floats; mypyc 2.4 gets the latter two wrong.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

PACKAGE = Path(__file__).parent
BUILDS = PACKAGE / "_builds"
ASKED = "DAEMUN_COMPILED"

MODULES = (
    "gateway.adapters.asyncio_gate",
    "gateway.adapters.fresh_tenants",
    "gateway.adapters.http_connection",
    "gateway.adapters.http_upstream",
    "gateway.adapters.journal",
    "gateway.adapters.journal_line",
    "gateway.adapters.metered_limits",
    "gateway.call",
    "gateway.client_connection.connection",
    "gateway.client_connection.connections",
    "gateway.client_connection.cycle",
    "gateway.client_connection.message",
    "gateway.dispatch",
    "gateway.exchange",
    "gateway.lease",
    "gateway.pipeline",
    "gateway.policy.account",
    "gateway.policy.admission",
    "gateway.policy.answer_window",
    "gateway.policy.ask",
    "gateway.policy.breaker",
    "gateway.policy.caller",
    "gateway.policy.cost",
    "gateway.policy.demand",
    "gateway.policy.drain",
    "gateway.policy.estimate",
    "gateway.policy.fair_queue",
    "gateway.policy.holding",
    "gateway.policy.ladder",
    "gateway.policy.limits",
    "gateway.policy.meter",
    "gateway.policy.pool",
    "gateway.policy.outlook",
    "gateway.policy.prefix",
    "gateway.policy.promise",
    "gateway.policy.rollout",
    "gateway.policy.routing",
    "gateway.policy.window",
    "gateway.ports",
    "gateway.protocol.asgi",
    "gateway.protocol.chunk",
    "gateway.protocol.counts",
    "gateway.protocol.credential",
    "gateway.protocol.endpoint",
    "gateway.protocol.language",
    "gateway.protocol.openai",
    "gateway.protocol.recorder",
    "gateway.protocol.renaming",
    "gateway.protocol.service_tier",
    "gateway.protocol.sse",
    "gateway.protocol.stream_reader",
    "gateway.receipt",
    "gateway.reply",
    "gateway.routes.inference",
    "gateway.terms",
)


def digest() -> str:
    """Of all that a build depends on: every source of the package, types in modules that stay plain included."""
    sha = hashlib.sha256(sys.implementation.cache_tag.encode())
    for source in sorted(PACKAGE.rglob("*.py")):
        sha.update(b"%b\0%b\0" % (source.relative_to(PACKAGE).as_posix().encode(), source.read_bytes()))
    return sha.hexdigest()[:16]


@cache
def folder() -> Path:
    """Where the build of these sources is, or would be."""
    return BUILDS / digest()


def is_running() -> bool:
    """Whether this process runs the compiled hot path."""
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)


def prefer() -> None:
    """From now on import the build of these sources, if there is one. Raises NotCompiled."""
    asked = os.environ.get(ASKED, "")
    if asked not in ("", "no", "must"):
        raise NotCompiled(
            f"{ASKED}={asked} is not known. Set it to no (plain Python) or must (an error without a build), or unset it."
        )
    if asked == "no" or is_running():
        return
    suffix = EXTENSION_SUFFIXES[0]
    files = {file.name.removesuffix(suffix): file for file in folder().glob(f"*{suffix}")} if BUILDS.is_dir() else {}
    if files:
        sys.meta_path.insert(0, _Finder(files))
    elif asked == "must":
        raise NotCompiled(f"{ASKED}=must, but {folder()} is not there. Run scripts/compile, or unset {ASKED}.")


class NotCompiled(ImportError):
    """What DAEMUN_COMPILED asks for is not to be had."""


class _Finder(MetaPathFinder):
    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        file = self._files.get(fullname)
        return None if file is None else spec_from_file_location(fullname, file, loader=ExtensionFileLoader(fullname, str(file)))
