"""The least loaded replica, then the one chosen longest ago."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.routing import LeastLoaded


@dataclass(frozen=True)
class Server:
    id: str


A, B, C = Server("a"), Server("b"), Server("c")


def test_nobody_ready_means_nobody_chosen() -> None:
    assert LeastLoaded[Server]().choose([]) is None
    assert LeastLoaded[Server]().choose([A], tried=["a"]) is None


def test_fewest_calls_in_flight_wins() -> None:
    load = LeastLoaded[Server]()
    load.begin("a")
    load.begin("a")
    load.begin("b")
    assert load.choose([A, B]) == B
    load.end("a")
    load.end("a")
    assert load.choose([A, B]) == A


def test_idle_replicas_take_turns() -> None:
    load, chosen = LeastLoaded[Server](), []
    for _ in range(6):
        replica = load.choose([A, B, C])
        assert replica is not None
        chosen.append(replica.id)
        load.begin(replica.id)
        load.end(replica.id)
    assert chosen == ["a", "b", "c", "a", "b", "c"]


def test_tried_ones_are_left_out() -> None:
    assert LeastLoaded[Server]().choose([A, B], tried=["a"]) == B


def test_unknown_replicas_are_forgotten_but_not_their_calls() -> None:
    load = LeastLoaded[Server]()
    load.begin("a")
    load.begin("b")
    load.end("b")
    load.forget(known={"a"})
    assert load.in_flight("a") == 1
    assert load.choose([B, C]) == B, "b counts as never chosen again"


@given(st.lists(st.integers(0, 2)))
def test_loads_never_differ_by_more_than_one_where_nothing_ends(ends: list[int]) -> None:
    load, servers = LeastLoaded[Server](), [A, B, C]
    for _ in ends:
        replica = load.choose(servers)
        assert replica is not None
        load.begin(replica.id)
    loads = [load.in_flight(server.id) for server in servers]
    assert max(loads) - min(loads) <= 1
