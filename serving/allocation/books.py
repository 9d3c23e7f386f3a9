"""What is known while a plan is made: who wants what, what stands where, and what has been decided so far."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from serving.allocation.claim import Facts, Model
from serving.allocation.fleet import Node
from serving.allocation.ground import DRAINING, FREE_NOW, Ground, Live
from serving.allocation.preference import preference
from serving.allocation.replica import Grade, Hold, Phase, Replica, State
from serving.allocation.rooms import Slice
from serving.allocation.shape import Shape

OPEN, VOLATILE, HELD, FIRST_TEAM = 0, 1, 2, 3  # pools: nobody's, those that may leave, all that is reserved, and that by team
ANYWHERE = (OPEN, VOLATILE, HELD)


class Books:
    """Built anew for each plan. Stages add to it; nothing in the facts or the state is changed."""

    def __init__(self, facts: Facts, state: State, holds: Sequence[Hold], now: float) -> None:
        self.facts, self.holds, self.now = facts, holds, now
        self.nodes = sorted((node for node in facts.nodes if node.up), key=lambda node: node.id)
        self.models: dict[str, Model] = {model.id: model for model in sorted(facts.models, key=lambda model: model.id)}
        self.wanted = {(claim.team, claim.model): claim.wanted for claim in sorted(facts.claims, key=lambda c: (c.team, c.model))}
        self.claimed: dict[str, list[str]] = {}  # models by team
        self.askers: dict[str, list[str]] = {}  # teams by model
        for team, model in self.wanted:
            self.claimed.setdefault(team, []).append(model)
            self.askers.setdefault(model, []).append(team)
        self.preference = preference(self.models.values(), self.nodes)
        self.shapes = self.preference.shapes
        self._lay_out()
        self.lives: dict[str, Live] = {}
        self.by_model: dict[str, list[Live]] = {}
        self.lost: list[Replica] = []
        self.dismissed: list[tuple[Live, Live | None]] = []  # with the one that it makes way for
        self.settled: set[str] = set()  # replicas that are where they should be, by a right that is theirs
        self.before = sorted(state.replicas, key=lambda replica: replica.id)
        self._names, self._numbers = {replica.id for replica in state.replicas}, dict[str, int]()
        for replica in self.before:
            self._take_in(replica)

    def _lay_out(self) -> None:
        reservations = {reservation.id: reservation for reservation in self.facts.reservations}
        teams = sorted({reservations[hold.reservation].team for hold in self.holds})
        self.pools = {team: FIRST_TEAM + number for number, team in enumerate(teams)}
        holder = {(hold.node, gpu): reservations[hold.reservation].team for hold in self.holds for gpu in hold.gpus}
        self.first_cell: dict[str, int] = {}
        self.sizes = {node.id: node.gpus for node in self.nodes}
        self.node_of: list[Node] = []
        self.holder: list[str | None] = []  # by cell: the team that it is reserved for
        slices: list[Slice] = []
        for number, node in enumerate(self.nodes):
            self.first_cell[node.id] = len(self.holder)
            by_team: dict[str | None, list[int]] = {}
            for gpu in range(node.gpus):
                team = holder.get((node.id, gpu))
                by_team.setdefault(team, []).append(len(self.holder))
                self.holder.append(team)
                self.node_of.append(node)
            for team, cells in by_team.items():
                pools = (VOLATILE if node.volatile else OPEN,) if team is None else (HELD, self.pools[team])
                slices.append(Slice(number, node.kind, pools, tuple(cells)))
        self.ground = Ground(len(self.holder), slices)

    def _take_in(self, replica: Replica) -> None:
        first = self.first_cell.get(replica.node)
        if first is None or max(replica.gpus) >= self.sizes[replica.node]:
            self.lost.append(replica)
        elif replica.phase is not Phase.DRAINING or (replica.until or 0.0) > self.now:
            self._enter(Live.of(replica, tuple([first + gpu for gpu in replica.gpus])))

    def _enter(self, live: Live) -> None:
        self.lives[live.id] = live
        self.by_model.setdefault(live.model, []).append(live)
        self.ground.add(live)

    def standing(self, model: str) -> list[Live]:
        """The model's replicas that do not drain."""
        return [live for live in self.by_model.get(model, ()) if live.rank < DRAINING]

    def grant(self, live: Live, grade: Grade, team: str) -> None:
        """It stays where it is, by this right."""
        live.team, live.grade, live.due = team, grade, None
        self.ground.rerank(live, grade)
        self.settled.add(live.id)

    def start(self, model: str, team: str, shape: Shape, cells: tuple[int, ...], grade: Grade) -> Live:
        """A new replica on these GPUs; whoever is in its way goes."""
        live = Live(self._name(model), model, team, shape, cells, grade)
        live.node = self.node_of[cells[0]].id
        live.gpus = tuple([cell - self.first_cell[live.node] for cell in cells])
        for other in self.ground.in_the_way(cells, shape):
            self.dismiss(other, live)
        self._enter(live)
        self.settled.add(live.id)
        return live

    def dismiss(self, live: Live, by: Live | None) -> None:
        """It drains, or is forgotten if it never ran."""
        self.dismissed.append((live, by))
        self.settled.discard(live.id)
        if live.phase is Phase.PROMISED:
            self.ground.remove(live)
            del self.lives[live.id]
            self.by_model[live.model].remove(live)
        else:
            self.ground.rerank(live, DRAINING)
            live.phase, live.until = Phase.DRAINING, self.now + self.facts.drain_s

    def search(
        self, shapes: Sequence[Shape], pools: Iterable[int], lowest: int, highest: int = FREE_NOW
    ) -> tuple[Shape, tuple[int, ...]] | None:
        """The first shape and place that disturb least."""
        pools = tuple(pools)
        for level in self.ground.levels(lowest):
            if level <= highest:
                for shape in shapes:
                    for pool in pools:
                        if cells := self.ground.find(level, pool, shape):
                            return shape, cells
        return None

    def is_stable(self, live: Live) -> bool:
        return not self.node_of[live.cells[0]].volatile

    def holders(self, live: Live) -> Iterator[str | None]:
        return (self.holder[cell] for cell in live.cells)

    def _name(self, model: str) -> str:
        number = self._numbers.get(model, 0) + 1
        while f"{model}#{number}" in self._names:
            number += 1
        self._numbers[model] = number
        return f"{model}#{number}"
