"""Who is entitled to how much: weighted dominant resource fairness, counted."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from serving.allocation.replica import Grade
from serving.allocation.sharing import Shares, Supply, fill
from tests.allocation_world import USABLE, part, whole

MEMORY = {kind: mib / 100 for kind, mib in USABLE.items()}
SPEED = {"H100": 1.0, "L40S": 0.4, "RTX4090": 0.3}


def supply(**gpus: int) -> Supply:
    hundredths = {kind: 100 * gpus.get(kind, 0) for kind in USABLE}
    return Supply(hundredths, hundredths, MEMORY, SPEED)


def by_team(shares: Shares) -> dict[str, int]:
    teams: Counter[str] = Counter()
    for (team, _, _, _), count in shares.rights.items():
        teams[team] += count
    return dict(teams)


ONE = {"m": (whole("H100"),)}


def test_equal_teams_get_equal_shares() -> None:
    shares = fill(supply(H100=6), {"a": 1.0, "b": 1.0}, {("a", "m"): 9, ("b", "m"): 9}, {"m": 99}, ONE)
    assert by_team(shares) == {"a": 3, "b": 3}
    assert shares.without == {("a", "m"): 6, ("b", "m"): 6}


def test_who_wants_little_gets_it_and_the_rest_is_shared() -> None:
    wants = {("a", "m"): 1, ("b", "m"): 9, ("c", "m"): 9}
    assert by_team(fill(supply(H100=9), dict.fromkeys("abc", 1.0), wants, {"m": 99}, ONE)) == {"a": 1, "b": 4, "c": 4}


def test_what_exceeds_the_fair_part_is_borrowed() -> None:
    shares = fill(supply(H100=4), {"a": 1.0, "b": 1.0}, {("a", "m"): 4}, {"m": 99}, ONE)
    assert shares.rights == {("a", "m", "H100", Grade.SHARE): 2, ("a", "m", "H100", Grade.BORROWED): 2}


def test_small_cards_count_for_little() -> None:
    """A team that makes do with all four of the small cards has not had its share of the large ones."""
    shapes = {"small": (whole("RTX4090"), whole("H100")), "large": (whole("H100"),)}
    wants = {("a", "small"): 99, ("b", "large"): 99}
    shares = fill(supply(H100=12, RTX4090=4), {"a": 1.0, "b": 1.0}, wants, {"small": 99, "large": 99}, shapes)
    assert by_team(shares) == {"a": 4 + 5, "b": 7}


def test_models_of_a_team_take_turns_up_to_their_ceilings() -> None:
    shapes = {"m": (part("H100", 50),), "n": (part("H100", 50),)}
    shares = fill(supply(H100=2), {"a": 1.0}, {("a", "m"): 9, ("a", "n"): 9}, {"m": 1, "n": 9}, shapes)
    assert {right[1]: count for right, count in sorted(shares.rights.items())} == {"m": 1, "n": 3}


@given(
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from([0.5, 1.0, 3.0]), min_size=1),
    st.lists(st.integers(0, 30), min_size=4, max_size=4),
    st.integers(0, 40),
)
def test_nobody_could_have_more_without_one_who_has_less_relative_to_its_weight(
    weights: dict[str, float], wanted: list[int], gpus: int
) -> None:
    wants = {(team, "m"): count for team, count in zip("abcd", wanted, strict=True) if team in weights}
    got = by_team(fill(supply(H100=gpus), weights, wants, {"m": 1000}, ONE))
    assert sum(got.values()) == min(gpus, sum(wants.values()))
    for team in weights:
        if got.get(team, 0) < wants[team, "m"]:
            for other in weights:
                assert (got.get(other, 0) - 1) / weights[other] <= got.get(team, 0) / weights[team] + 1e-9
