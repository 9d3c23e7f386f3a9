"""Bad input is refused as a whole, before anything is decided, with the one place that is wrong and what to do."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from math import isfinite

from serving.allocation.claim import HOUSE, Facts, Model, Reservation
from serving.allocation.fleet import WHOLE, Kind, Node
from serving.allocation.replica import Phase, Replica, State
from serving.allocation.shape import Shape


class BadInput(ValueError):
    """The facts or the state cannot be right. `place` names where, as in `models['solar-10.7b'].floor`."""

    def __init__(self, place: str, sentence: str) -> None:
        self.place = place
        super().__init__(f"{place}: {sentence}.")


def check(facts: Facts, state: State, now: float) -> None:
    """Raises BadInput at the first thing that is wrong."""
    for name, ids in (
        ("kinds", [kind.name for kind in facts.kinds]),
        ("nodes", [node.id for node in facts.nodes]),
        ("models", [model.id for model in facts.models]),
        ("teams", [team.id for team in facts.teams]),
        ("reservations", [reservation.id for reservation in facts.reservations]),
        ("claims", [f"{claim.team}, {claim.model}" for claim in facts.claims]),
        ("replicas", [replica.id for replica in state.replicas]),
    ):
        _check_ids(name, ids)
    _must(isfinite(now), "now", f"{now} is no time; give seconds")
    _must(isfinite(facts.drain_s) and facts.drain_s >= 0, "drain_s", f"{facts.drain_s} is no time to drain; give 0 s or more")
    kinds = {kind.name: kind for kind in facts.kinds}
    _check_fleet(facts, kinds)
    for model in facts.models:
        _check_model(model, kinds)
    _check_teams(facts)
    _check_reservations(facts, kinds, now)
    _check_state(facts, state)


def _must(holds: bool, place: str, sentence: str) -> None:
    if not holds:
        raise BadInput(place, sentence)


def _check_ids(name: str, ids: list[str]) -> None:
    if len(set(ids)) < len(ids):
        twice = next(id_ for number, id_ in enumerate(ids) if id_ in ids[:number])
        raise BadInput(f"{name}['{twice}']", "is there twice; leave one of them out")


def _check_fleet(facts: Facts, kinds: dict[str, Kind]) -> None:
    for kind in facts.kinds:
        place = f"kinds['{kind.name}']"
        _must(kind.kept_mib >= 0, f"{place}.kept_mib", f"{kind.kept_mib} MiB is below 0")
        _must(
            kind.usable_mib > 0, f"{place}.memory_mib", f"{kind.memory_mib} MiB less {kind.kept_mib} kept leaves nothing to use"
        )
    for node in facts.nodes:
        place = f"nodes['{node.id}']"
        _must_know(node.kind, kinds, "kind of GPU", f"{place}.kind")
        _must(node.gpus >= 0, f"{place}.gpus", f"{node.gpus} is below 0")


def _check_model(model: Model, kinds: dict[str, Kind]) -> None:
    place = f"models['{model.id}']"
    _must(model.floor >= 0, f"{place}.floor", f"{model.floor} is below 0")
    _must(
        model.floor <= model.ceiling,
        f"{place}.floor",
        f"{model.floor} is above the ceiling of {model.ceiling}; lower one of them",
    )
    for shape in model.shapes:
        _check_shape(f"{place}.shapes['{shape.kind}']", shape, kinds)


def _check_shape(place: str, shape: Shape, kinds: dict[str, Kind]) -> None:
    _must_know(shape.kind, kinds, "kind of GPU", place)
    _must(shape.gpus >= 1, f"{place}.gpus", f"{shape.gpus} is below 1")
    _must(1 <= shape.hundredths <= WHOLE, f"{place}.hundredths", f"{shape.hundredths} is not between 1 and {WHOLE}")
    _must(
        shape.gpus == 1 or shape.hundredths == WHOLE, f"{place}.hundredths", "a replica on several GPUs takes each of them whole"
    )
    _must(shape.memory_mib >= 0, f"{place}.memory_mib", f"{shape.memory_mib} is below 0")
    usable = kinds[shape.kind].usable_mib
    _must(
        shape.memory_mib * WHOLE <= usable * shape.hundredths,
        f"{place}.memory_mib",
        f"{shape.memory_mib} MiB are more than {shape.hundredths} hundredths of a GPU's {usable} MiB; give it a larger part",
    )
    speed = shape.tokens_per_s
    _must(
        isfinite(speed) and speed > 0,
        f"{place}.tokens_per_s",
        f"{speed} is no speed; give what was measured, or leave the shape out",
    )


def _check_teams(facts: Facts) -> None:
    teams = {team.id for team in facts.teams}
    models = {model.id for model in facts.models}
    for team in facts.teams:
        place = f"teams['{team.id}']"
        _must(team.id != HOUSE, place, "a team needs a name: the empty one is the house's")
        _must(isfinite(team.weight) and team.weight > 0, f"{place}.weight", f"{team.weight} is no weight; give a number above 0")
    for claim in facts.claims:
        place = f"claims['{claim.team}, {claim.model}']"
        _must_know(claim.team, teams, "team", f"{place}.team")
        _must_know(claim.model, models, "model", f"{place}.model")
        _must(claim.wanted >= 0, f"{place}.wanted", f"{claim.wanted} is below 0")


def _check_reservations(facts: Facts, kinds: dict[str, Kind], now: float) -> None:
    teams = {team.id for team in facts.teams}
    for reservation in facts.reservations:
        place = f"reservations['{reservation.id}']"
        _must_know(reservation.team, teams, "team", f"{place}.team")
        if reservation.kind is not None:
            _must_know(reservation.kind, kinds, "kind of GPU", f"{place}.kind")
        _must(reservation.gpus >= 1, f"{place}.gpus", f"{reservation.gpus} is below 1")
        _must(isfinite(reservation.start) and isfinite(reservation.end), f"{place}.start", "start and end must be times")
        _must(
            reservation.start < reservation.end, f"{place}.end", f"{reservation.end} is not after the start, {reservation.start}"
        )
    owned = dict.fromkeys(kinds, 0)
    for node in facts.nodes:
        owned[node.kind] += 0 if node.volatile else node.gpus
    ahead = [reservation for reservation in facts.reservations if reservation.end > now]
    for kind, gpus in owned.items():
        _check_overlap([each for each in ahead if each.kind == kind], gpus, f"stable GPUs of kind {kind}")
    # Whoever reserved any kind can be given what the others leave, so beyond the kinds only the sum counts.
    _check_overlap(ahead, sum(owned.values()), "stable GPUs in all")


def _check_overlap(reservations: list[Reservation], owned: int, what: str) -> None:
    """Only a start can make it too many: at each one, what runs then must fit."""
    ends = sorted(reservations, key=lambda each: (each.end, each.id))
    promised = ended = 0
    for each in sorted(reservations, key=lambda each: (each.start, each.id)):
        while ends[ended].end <= each.start:
            promised -= ends[ended].gpus
            ended += 1
        promised += each.gpus
        if promised > owned:
            sentence = f"with what else is reserved at {each.start:.0f} s, {promised} are promised of {owned} {what}"
            raise BadInput(f"reservations['{each.id}'].gpus", f"{sentence}; take fewer, or another time")


def _check_state(facts: Facts, state: State) -> None:
    nodes = {node.id: node for node in facts.nodes}
    used: dict[tuple[str, int], tuple[int, int]] = {}
    for replica in state.replicas:
        node = nodes.get(replica.node)
        if wrong := _wrong_with(replica, node):
            raise BadInput(f"replicas['{replica.id}'].{wrong[0]}", wrong[1])
        part, phase = replica.shape.hundredths, replica.phase
        for gpu in replica.gpus:
            here, later = used.get((replica.node, gpu), (0, 0))
            here += part if phase is not Phase.PROMISED else 0
            later += part if phase is not Phase.DRAINING else 0
            if here > WHOLE or later > WHOLE:
                raise BadInput(f"replicas['{replica.id}'].gpus", f"GPU {gpu} of {replica.node} would be over-committed")
            used[replica.node, gpu] = here, later
    held: set[tuple[str, int]] = set()
    for hold in state.holds:
        cells = {(hold.node, gpu) for gpu in hold.gpus}
        _must(not cells & held, f"holds['{hold.reservation}']", f"a GPU of {hold.node} is held twice")
        held |= cells


def _wrong_with(replica: Replica, node: Node | None) -> tuple[str, str] | None:
    """The field and what is wrong with it."""
    if node and node.kind != replica.shape.kind:
        return "shape", f"it is for {replica.shape.kind}, but {replica.node} has {node.kind}"
    if len(replica.gpus) != replica.shape.gpus or len(set(replica.gpus)) != replica.shape.gpus or min(replica.gpus) < 0:
        return "gpus", f"{replica.gpus} does not name {replica.shape.gpus} of the node's GPUs"
    if (replica.phase is Phase.RUNNING) != (replica.until is None):
        return "until", "is for what is promised or drains"
    return None


def _must_know(name: str, known: Collection[str], what: str, place: str) -> None:
    if name not in known:
        raise BadInput(place, _unknown(name, what, known))


def _unknown(name: str, what: str, known: Iterable[str]) -> str:
    names = sorted(known)
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return f"there is no {what} {name!r}; there are {shown or 'none'}"
