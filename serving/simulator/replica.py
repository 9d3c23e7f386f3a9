"""One replica in virtual time: a model of an engine, the calls on it, and where it is in its life.

starting ──cold start over──▶ ready ──has to go──▶ draining ──last call over, or time up──▶ gone
   ▲  └──has to go──▶ gone      │
   └──starts anew on its GPUs── failed           lost with its node, in any state ──▶ gone
"""

from __future__ import annotations

import math
from enum import Enum

from engines.model import EngineFigures, EngineModel
from gateway.policy.account import Taken
from gateway.policy.admission import Ask, Ticket
from gateway.policy.routing import Flight, Work
from serving.simulator.visit import Visit


class Life(Enum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


class Call:
    """A visit on its way: `row` is its place in the result. `produced`: tokens that it got from replicas that are gone since."""

    __slots__ = (
        "ask",
        "began_at",
        "flight",
        "id",
        "name",
        "output_tokens",
        "produced",
        "replica",
        "row",
        "runs_out",
        "sent_at",
        "taken",
        "ticket",
        "visit",
        "work",
    )

    ask: Ask
    flight: Flight
    work: Work

    def __init__(self, visit: Visit, row: int) -> None:
        self.visit = visit
        self.row = row
        self.name = visit.caller or str(row)
        self.ticket = Ticket(0)
        self.id = ""
        self.output_tokens = visit.output_tokens
        self.produced = 0
        self.began_at = self.sent_at = math.nan
        self.runs_out = math.inf
        self.replica: Replica | None = None
        self.taken: Taken | None = None

    def tokens(self, now: float) -> int:
        """Of its answer, so far."""
        if self.replica is None:
            return self.produced
        engine = self.replica.engine
        engine.reach(now)
        try:
            return self.produced + engine.tokens_of(self.id)
        except KeyError:  # it ends at this very moment
            return self.output_tokens


class Replica:
    """`due`: when the engine is looked at next. `starts`: how often it has begun, so that what was noted for an earlier life is
    known to be void. `hundredths`: of GPUs that it holds.
    """

    __slots__ = ("calls", "due", "engine", "figures", "hundredths", "id", "life", "model", "node", "places", "starts")

    def __init__(self, id_: str, model: str, node: str, figures: EngineFigures, hundredths: int) -> None:
        self.id = id_
        self.model = model
        self.node = node
        self.figures = figures
        self.hundredths = hundredths
        self.places = figures.max_num_seqs
        self.life = Life.STARTING
        self.starts = 0
        self.engine = EngineModel(figures)
        self.calls: dict[str, Call] = {}  # by the engine's name for them
        self.due = math.inf

    def start(self) -> int:
        """From the beginning, with an empty engine. Returns which start this is."""
        self.life = Life.STARTING
        self.engine = EngineModel(self.figures)
        self.calls = {}
        self.due = math.inf
        self.starts += 1
        return self.starts
