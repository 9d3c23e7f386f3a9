"""A national fleet made from a seed: 10,000 GPUs of several kinds, 200 models, 500 teams, five of them with reservations.

Memory and speeds are made up within the range of what such cards have; only their proportions matter here.
"""

from __future__ import annotations

from random import Random

from serving.allocation import Claim, Facts, Kind, Model, Need, Node, Reservation, Team, legal_shapes

KINDS = (
    Kind("H200", 143_771, 4_096),
    Kind("H100", 81_559, 4_096),
    Kind("A100", 81_920, 4_096),
    Kind("L40S", 46_068, 2_048),
    Kind("RTX4090", 24_564, 2_048),
)
_RATES = {"H200": 4_800.0, "H100": 3_350.0, "A100": 2_039.0, "L40S": 864.0, "RTX4090": 1_008.0}  # memory bandwidth, GB/s
_NODES = (("H200", 200), ("H100", 450), ("A100", 300), ("L40S", 200), ("RTX4090", 100))  # of eight GPUs each; the last may leave
_SIZES_B = (0.5, 1.2, 1.5, 2.1, 2.4, 3.0, 7.8, 8.0, 10.7, 14.0, 30.0, 32.0, 34.0, 72.0, 100.0)
HALF_YEAR_S = 182 * 86_400.0
PROGRAMME = tuple(f"national-{number}" for number in range(1, 6))
RESERVED_GPUS = 512


def national(seed: int, *, demand: float = 1.0) -> Facts:
    """`demand` scales what every team wants; at 1 it is about one and a half times what the fleet can hold."""
    random = Random(seed)  # noqa: S311 - a benchmark, not a secret
    models = tuple(_model(random, number) for number in range(200))
    teams = (
        *(Team(id_, 4.0) for id_ in PROGRAMME),
        *(Team(f"team-{number:03}", random.choice((1.0, 1.0, 2.0))) for number in range(495)),
    )
    claims: dict[tuple[str, str], Claim] = {}
    for team in teams:
        for model in random.sample(models, random.randint(1, 5)):
            wanted = random.randint(20, 120) if team.id in PROGRAMME else random.randint(1, 24)
            claims[team.id, model.id] = Claim(team.id, model.id, round(wanted * demand))
    reservations = tuple(Reservation(f"half-year-{id_}", id_, "H100", RESERVED_GPUS, 0.0, HALF_YEAR_S) for id_ in PROGRAMME)
    return Facts(KINDS, tuple(_nodes()), models, teams, tuple(claims.values()), reservations, 60.0)


def _nodes() -> list[Node]:
    return [
        Node(f"{kind.lower()}-{number:04}", kind, 8, volatile=kind == "RTX4090")
        for kind, count in _NODES
        for number in range(count)
    ]


def _model(random: Random, number: int) -> Model:
    size_b = random.choice(_SIZES_B)
    weights_mib = int(size_b * 2 * 1e9 / 2**20)
    need = Need(weights_mib, cache_mib=weights_mib // 5 + 1_024, fixed_mib=1_024)
    speeds = {kind: 8 * rate / size_b * random.uniform(0.8, 1.2) for kind, rate in _RATES.items()}
    return Model(f"model-{number:03}-{size_b:g}b", legal_shapes(need, KINDS, speeds), random.choice((0, 0, 1, 2)), 400)
