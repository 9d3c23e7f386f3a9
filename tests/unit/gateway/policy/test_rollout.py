"""Who is answered by which version: the same for good, exact over many, and moved by no more than a change of shares asks for."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.rollout import Rollout, Version, is_idle

CALLERS = [f"key_{number}".encode() for number in range(20_000)]
shares = st.floats(0, 1)
callers = st.binary(max_size=40)


@pytest.mark.parametrize(("canary", "shadow"), [(0.1, 0.05), (0.5, 0.5), (0.001, 0.0), (0.0, 0.3), (1.0, 0.0), (0.0, 1.0)])
def test_shares_are_those_that_were_set(canary: float, shadow: float) -> None:
    """Within four standard deviations of what 20,000 callers would come to by chance, and exactly where there is no chance."""
    versions = [Rollout("old", "new", canary, shadow).version(caller) for caller in CALLERS]
    for version, share in ((Version.CANARY, canary), (Version.SHADOW, shadow), (Version.MODEL, 1 - canary - shadow)):
        off = 4 * (share * (1 - share) / len(CALLERS)) ** 0.5
        assert versions.count(version) / len(CALLERS) == pytest.approx(share, abs=off)


@given(callers, shares, shares)
def test_caller_stays_with_its_version_whatever_process_asks(caller: bytes, canary: float, shadow: float) -> None:
    one, other = (Rollout("old", "new", canary, (1 - canary) * shadow) for _ in range(2))
    assert one.version(caller) is other.version(caller)
    assert 0 <= one.point(caller) < 1


def test_points_are_the_same_in_every_version_of_the_gateway() -> None:
    """Or an upgrade would move callers."""
    assert Rollout("old", "new").point(b"key_1") == pytest.approx(0.6968725859277075)
    assert Rollout("옛", "새").point("키".encode()) == pytest.approx(0.8608983744553392)


@given(callers, st.lists(shares, min_size=2, max_size=6).map(sorted))
def test_who_is_a_canary_stays_one_while_the_share_grows(caller: bytes, grows: list[float]) -> None:
    were = [Rollout("old", "new", share).version(caller) is Version.CANARY for share in grows]
    assert all(not before or after for before, after in pairwise(were))


@given(callers, st.lists(shares, min_size=2, max_size=6).map(sorted))
def test_who_is_shadowed_stays_so_while_that_share_grows(caller: bytes, grows: list[float]) -> None:
    were = [Rollout("old", "new", shadow=share).version(caller) is Version.SHADOW for share in grows]
    assert all(not before or after for before, after in pairwise(were))


@given(callers, shares, shares, shares)
def test_one_share_moves_nobody_of_the_other_as_long_as_there_is_room_for_both(
    caller: bytes, canary: float, other: float, shadow: float
) -> None:
    one, two = (Rollout("old", "new", share, min(shadow, 1 - max(canary, other))) for share in (canary, other))
    assert (one.version(caller) is Version.SHADOW) == (two.version(caller) is Version.SHADOW)


def test_canaries_of_one_candidate_are_not_those_of_the_next() -> None:
    first, second = ([Rollout("old", new, 0.1).version(one) is Version.CANARY for one in CALLERS] for new in ("new", "newer"))
    both = sum(a and b for a, b in zip(first, second, strict=True)) / len(CALLERS)
    assert both == pytest.approx(0.01, abs=0.004)


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 3))
def test_shadows_leave_clients_room(places: int, running: int, waiting: int) -> None:
    idle = is_idle(places, running, waiting)
    if places == 0 or waiting or running >= places:
        assert not idle
    elif places > 1:
        assert idle == (running + 1 <= places // 2)
    else:
        assert idle
