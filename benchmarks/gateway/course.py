"""The course of a benchmark: what is measured, what runs beside what, who takes turns with whom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from benchmarks.gateway import figures as names
from benchmarks.gateway import measure, peers
from benchmarks.gateway.measure import Session
from benchmarks.gateway.peers import DAEMUN, DIRECT, INSTALLED, LITELLM, Gateway
from benchmarks.gateway.processes import BenchmarkError
from benchmarks.gateway.quiet import Watch

ENOUGH_ROUNDS = 3
MOST_DISTURBED_PERCENT = 5.0
_QUICK_SHARE, _QUICK_OPEN = 0.05, 1000


class Part(StrEnum):
    CALLS = "calls"
    LATENCY = "latency"
    STREAMS = "streams"
    OPEN = "open"
    MEMORY = "memory"


COMPARED = (Part.CALLS, Part.LATENCY, Part.STREAMS)


@dataclass(frozen=True, slots=True)
class Plan:
    parts: tuple[Part, ...]
    peers: tuple[str, ...]
    rounds: int
    quick: bool

    @property
    def gateways(self) -> tuple[str, ...]:
        return (DIRECT, DAEMUN, *self.peers)

    @property
    def complete(self) -> bool:
        """Whether the document may be written: everything was measured, often enough."""
        everything = set(self.parts) == set(Part) and set(self.peers) == set(INSTALLED)
        return everything and self.rounds >= ENOUGH_ROUNDS and not self.quick


def named_peers(text: str) -> tuple[str, ...]:
    """Names separated by commas, or `none`; in the order of the tables. Raises BenchmarkError."""
    asked = set() if text == "none" else {name.strip() for name in text.split(",")}
    if unknown := asked - set(INSTALLED):
        raise BenchmarkError(f"no gateway is called {' or '.join(sorted(unknown))}; there are {', '.join(INSTALLED)}")
    return tuple(name for name in INSTALLED if name in asked)


def run(plan: Plan, session: Session, folder: Path) -> None:
    """Raises BenchmarkError."""
    with peers.engine(folder) as direct:
        if set(COMPARED) & set(plan.parts):
            _compare(plan, session, direct, folder)
        if Part.OPEN in plan.parts:
            with _fresh(session, Part.OPEN, direct, folder) as gateway:
                most = measure.most_open_streams()
                if most < measure.OPEN_STREAMS:
                    session.say(f"{most:,} streams are as many as the limit of open files (ulimit -Hn) allows")
                measure.open_streams(session, gateway, _QUICK_OPEN if plan.quick else most)
        if Part.MEMORY in plan.parts:
            with _fresh(session, Part.MEMORY, direct, folder) as gateway:
                measure.memory(session, gateway, _QUICK_SHARE if plan.quick else 1.0)


def _compare(plan: Plan, session: Session, direct: Gateway, folder: Path) -> None:
    """All of them run all the time, since an idle one costs nothing; in each round each gets its turn."""
    with ExitStack() as running:
        gateways = []
        for name in plan.gateways:
            session.say(f"starting {name} {peers.version_of(name)}".rstrip())
            gateways.append(running.enter_context(peers.gateway(name, direct, folder)))
        for part in COMPARED:
            for number in range(plan.rounds if part in plan.parts else 0):
                session.say(f"{part.value}: round {number + 1} of {plan.rounds}")
                with _watched(session):
                    _take_turns(part, session, gateways)


def _take_turns(part: Part, session: Session, gateways: Sequence[Gateway]) -> None:
    if part is Part.CALLS:
        measure.calls(session, gateways)
    elif part is Part.LATENCY:
        measure.latency(replace(session, seconds=max(1.0, session.seconds / 2)), gateways)
    else:  # LiteLLM could send a sixtieth of these chunks
        measure.streams(session, [gateway for gateway in gateways if gateway.name != LITELLM])


@contextmanager
def _fresh(session: Session, part: Part, direct: Gateway, folder: Path) -> Iterator[Gateway]:
    """A daemun of its own, with nothing beside it."""
    session.say(f"{part.value}: starting a fresh daemun")
    with peers.gateway(DAEMUN, direct, folder) as gateway, _watched(session):
        yield gateway


@contextmanager
def _watched(session: Session) -> Iterator[None]:
    watch = Watch()
    yield
    percent = watch.others_percent()
    session.figures.add(names.OTHERS_PERCENT, names.MACHINE, percent)
    if percent > MOST_DISTURBED_PERCENT:
        session.say(f"others used {percent:.0f} % of the two cores meanwhile: these figures mean little")
