"""Which GPUs a reservation has got. It is bound to certain ones as long as it runs, so that nobody else's replicas can crumble
them.

Rejected: reservations as mere amounts. Then 512 GPUs may be 512 halves of other people's nodes, and a replica that needs eight in
one node finds none, although the sum is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from functools import cached_property

from serving.allocation.claim import Reservation
from serving.allocation.fleet import Node
from serving.allocation.replica import Grade, Hold, Phase, Replica

Cell = tuple[str, int]  # a node and a GPU in it


class _Use:
    """What stands where: what a team has there already suits it, what keeps a floor should be left alone, what is free disturbs
    nobody.
    """

    def __init__(self, replicas: Iterable[Replica]) -> None:
        self.own: dict[str, dict[str, int]] = {}  # hundredths by team and node
        self._by_cell: dict[Cell, list[Replica]] = {}
        self._floor: dict[str, int] = {}
        self._busy: dict[str, int] = {}
        for replica in replicas:
            if replica.phase is Phase.DRAINING:
                continue
            own, busy = self.own.setdefault(replica.team, {}), self._busy
            own[replica.node] = own.get(replica.node, 0) + replica.shape.size
            busy[replica.node] = busy.get(replica.node, 0) + replica.shape.size
            if replica.grade is Grade.FLOOR:
                self._floor[replica.node] = self._floor.get(replica.node, 0) + replica.shape.size
            for gpu in replica.gpus:
                self._by_cell.setdefault((replica.node, gpu), []).append(replica)

    def of_node(self, node: str) -> tuple[int, int]:
        return self._floor.get(node, 0), self._busy.get(node, 0)

    def of_gpu(self, cell: Cell, team: str) -> tuple[int, int, int]:
        """How badly the GPU suits the team."""
        own = floor = busy = 0
        for replica in self._by_cell.get(cell, ()):
            own += replica.shape.hundredths if replica.team == team else 0
            floor += replica.shape.hundredths if replica.grade is Grade.FLOOR and replica.team != team else 0
            busy += replica.shape.hundredths
        return floor, -own, busy


class _Binding:
    """The stable GPUs that are up: what each reservation holds, and what none does."""

    def __init__(self, nodes: Iterable[Node], replicas: Iterable[Replica]) -> None:
        self.nodes = {node.id: node for node in nodes if node.up and not node.volatile}
        self._replicas = replicas
        self._free = {node.id: set(range(node.gpus)) for node in self.nodes.values()}
        self.held: dict[str, set[Cell]] = {}

    @cached_property
    def _use(self) -> _Use:
        return _Use(self._replicas)

    @cached_property
    def _order(self) -> dict[str, list[str]]:
        """By kind: first the nodes where nothing is disturbed."""
        order: dict[str, list[str]] = {}
        for node in sorted(self.nodes.values(), key=lambda node: (self._use.of_node(node.id), -node.gpus, node.id)):
            order.setdefault(node.kind, []).append(node.id)
        return order

    def keep(self, reservation: Reservation, before: Iterable[Hold]) -> None:
        """What it had, as far as that is still there; if it has become smaller, without what suits it least."""
        had: list[Cell] = []
        for hold in before:
            node = self.nodes.get(hold.node)
            if node and reservation.kind in (None, node.kind):
                had += [(hold.node, gpu) for gpu in hold.gpus if gpu in self._free[hold.node]]
        if len(had) > reservation.gpus:
            had = sorted(had, key=lambda cell: (self._use.of_gpu(cell, reservation.team), cell))[: reservation.gpus]
        self.held[reservation.id] = set()
        self._give(reservation, had)

    def fill_up(self, reservation: Reservation, suiting: AbstractSet[str]) -> None:
        """Whole nodes while they are needed whole, then the smallest rest that suffices; where the team's own replicas are,
        first.
        """
        kinds = (
            sorted(self._order, key=lambda kind: (kind not in suiting, kind)) if reservation.kind is None else [reservation.kind]
        )
        for kind in kinds:
            if lacking := reservation.gpus - len(self.held[reservation.id]):
                self._give(reservation, self._chosen(kind, lacking, reservation.team))

    def take_over(self, reservation: Reservation, others: Iterable[Reservation]) -> None:
        """What it lacks still, of those that may have any kind."""
        lacking = reservation.gpus - len(self.held[reservation.id])
        if lacking <= 0:
            return
        theirs = sorted(
            (self._use.of_gpu(cell, reservation.team), cell, other.id)
            for other in others
            for cell in self.held[other.id]
            if self.nodes[cell[0]].kind == reservation.kind
        )
        for _, cell, other_id in theirs[:lacking]:
            self.held[other_id].remove(cell)
            self._free[cell[0]].add(cell[1])
            self._give(reservation, [cell])

    def _give(self, reservation: Reservation, cells: Iterable[Cell]) -> None:
        for node, gpu in cells:
            self._free[node].remove(gpu)
            self.held[reservation.id].add((node, gpu))

    def _chosen(self, kind: str, lacking: int, team: str) -> list[Cell]:
        own = self._use.own.get(team, {})
        first = sorted(
            (node for node in own if node in self.nodes and self.nodes[node].kind == kind), key=lambda node: (-own[node], node)
        )
        order = [node for node in (*first, *(each for each in self._order.get(kind, ()) if each not in own)) if self._free[node]]
        got: list[Cell] = []
        left: list[str] = []
        for node in order:
            if len(self._free[node]) <= lacking - len(got):
                got += [(node, gpu) for gpu in sorted(self._free[node])]
            else:
                left.append(node)
        if len(got) < lacking and left:
            # Each of them has more than is lacking: one will do.
            rank = {node: place for place, node in enumerate(order)}
            node = min(left, key=lambda node: (node not in own, self._use.of_node(node)[0], len(self._free[node]), rank[node]))
            cells = sorted(((node, gpu) for gpu in self._free[node]), key=lambda cell: (self._use.of_gpu(cell, team), cell))
            got += cells[: lacking - len(got)]
        return got


def bind(
    reservations: Iterable[Reservation],
    nodes: Iterable[Node],
    replicas: Iterable[Replica],
    before: Iterable[Hold],
    suiting: Mapping[str, AbstractSet[str]],
    now: float,
) -> tuple[Hold, ...]:
    """Those that run now keep what they have and get what they lack; `suiting` are the kinds that each team's models can use.

    Those of one kind come first: they may take what one of any kind has, if nothing else is left, and that one gets others for
    it.
    """
    running = sorted((each for each in reservations if each.runs(now)), key=lambda each: (each.kind is None, each.id))
    binding = _Binding(nodes, replicas)
    had: dict[str, list[Hold]] = {}
    for hold in before:
        had.setdefault(hold.reservation, []).append(hold)
    for each in running:
        binding.keep(each, had.get(each.id, ()))
    anywhere = [each for each in running if each.kind is None]
    for each in running:
        binding.fill_up(each, suiting.get(each.team, frozenset()))
        if each.kind is not None:
            binding.take_over(each, anywhere)
    return _holds(binding.held)


def _holds(held: Mapping[str, Iterable[Cell]]) -> tuple[Hold, ...]:
    by_node: dict[tuple[str, str], list[int]] = {}
    for id_, cells in held.items():
        for node, gpu in cells:
            by_node.setdefault((id_, node), []).append(gpu)
    return tuple(sorted(Hold(id_, node, tuple(sorted(gpus))) for (id_, node), gpus in by_node.items()))
