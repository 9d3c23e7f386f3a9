"""What is asked of all workers of this machine together, for whoever asks one of them.

    state_dir/demand/<worker>.json      written once a second by each, replaced whole; who reads adds up what is not old

A file and not a message: nobody has to listen, and a worker that is killed or hangs is forgotten in seconds. Workers on other
machines are not in it; an autoscaler of several machines asks each.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from pathlib import Path
from typing import Any

import msgspec

from gateway.policy.ask import Capacity
from gateway.policy.demand import Demand, Step, TierDemand
from gateway.policy.limits import Tier
from gateway.ports import Asked, Clock, Fleet, Gate, Tally, Telling

log = logging.getLogger(__name__)

_TELL_S = 1.0
_BELIEVED_S = 3.0
_KEPT_S = 60.0  # a file that old is nobody's
_SUFFIX = ".json"


class OwnDemand:
    """Of the only worker."""

    def __init__(self, gate: Gate, fleet: Fleet, clock: Clock) -> None:
        self._gate = gate
        self._fleet = fleet
        self._clock = clock

    async def of_all(self) -> list[Telling]:
        return [self.own()]

    def own(self) -> Telling:
        gate, fleet = self._gate, self._fleet
        models = {
            model: Asked(gate.demand(model), gate.tally(model), len(fleet.ready(model)), fleet.starting(model))
            for model in fleet.models()
        }
        return Telling(self._clock.time(), models)


class WorkersDemand:
    """Of one of several. Use as `async with`: so long it tells the others."""

    def __init__(self, own: OwnDemand, folder: Path, clock: Clock) -> None:
        self._own = own
        self._folder = folder
        self._clock = clock
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._path = folder / f"{self._name}{_SUFFIX}"

    async def __aenter__(self) -> WorkersDemand:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._telling = asyncio.create_task(self._tell_forever())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._telling.cancel()
        await asyncio.gather(self._telling, return_exceptions=True)
        await asyncio.to_thread(self._path.unlink, missing_ok=True)

    async def of_all(self) -> list[Telling]:
        return [self._own.own(), *await asyncio.to_thread(self._others, self._clock.time())]

    async def _tell_forever(self) -> None:
        trouble = ""
        while True:
            try:
                # Shielded: a write that is under way at the end must not come after the file's removal.
                await asyncio.shield(asyncio.to_thread(self._write, msgspec.json.encode(self._own.own())))
                trouble = ""
            except OSError as problem:
                if trouble != str(problem):
                    trouble = str(problem)
                    log.warning(
                        "Other workers do not hear what is asked of this one: %s cannot be written (%s).", self._path, trouble
                    )
            await asyncio.sleep(_TELL_S)

    def _write(self, told: bytes) -> None:
        new = self._path.with_suffix(".new")
        new.write_bytes(told)
        new.replace(self._path)

    def _others(self, now: float) -> list[Telling]:
        tellings = []
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            if path == self._path:
                continue
            with contextlib.suppress(OSError):
                telling = _read(path.read_bytes())
                if telling is not None and abs(now - telling.at) <= _BELIEVED_S:
                    tellings.append(telling)
                elif now - path.stat().st_mtime > _KEPT_S:
                    path.unlink()
        return tellings


def _read(told: bytes) -> Telling | None:
    """None for what another version of the gateway has written. By hand, since compiled classes tell msgspec no types."""
    try:
        said = msgspec.json.decode(told)
        return Telling(said["at"], {model: _asked(asked) for model, asked in said["models"].items()})
    except (msgspec.DecodeError, LookupError, TypeError, ValueError, AttributeError):
        return None


def _asked(said: dict[str, Any]) -> Asked:
    demand = dict(said["demand"])
    demand["tiers"] = {Tier(tier): TierDemand(**figures) for tier, figures in demand["tiers"].items()}
    demand["step"] = Step(demand["step"])
    demand["capacity"] = Capacity(**demand["capacity"])
    return Asked(Demand(**demand), Tally(**said["calls"]), said["ready"], said["starting"])
