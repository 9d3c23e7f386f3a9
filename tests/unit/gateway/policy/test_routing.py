"""Near, light, roomy; and never far from fair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.routing import Flight, Pressure, Router, Work
from tests.chat_sessions import seeded


@dataclass(frozen=True)
class Server:
    id: str


A, B, C, D = (Server(name) for name in "abcd")
ALL = (A, B, C, D)


def about(topic: str, more: str = "", tokens: int = 500, session: str = "") -> Work:
    """A call whose prompt begins with a long text on the topic."""
    return Work(_long(topic) + more.encode(), tokens, session)


@cache
def _long(topic: str) -> bytes:
    return (topic * 1500).encode()[:3000]


def send(router: Router[Server], work: Work, servers: Sequence[Server] = ALL, now: float = 0.0) -> tuple[str, Flight]:
    server = router.pick(work, servers, now)
    assert server is not None
    return server.id, router.began(server.id, work, now)


def call(router: Router[Server], work: Work, servers: Sequence[Server] = ALL, now: float = 0.0) -> str:
    """One that has ended before the next one comes."""
    name, flight = send(router, work, servers, now)
    router.ended(flight, 0, now)
    return name


def taught(*speeds: float) -> tuple[Router[Server], list[Server]]:
    """A router that has seen replicas of these speeds at work."""
    router, servers = Router[Server](), [Server(name) for name in "abcdef"[: len(speeds)]]
    for server, speed in zip(servers, speeds, strict=True):
        for _ in range(10):
            router.ended(router.began(server.id, about(server.id), now=-1000.0), 100, now=-1000.0 + 100 / speed)
    return router, servers


def test_nobody_ready_means_nobody_picked() -> None:
    router = Router[Server]()
    assert router.pick(about("a"), [], 0.0) is None
    assert router.pick(about("a"), [A], 0.0, tried=["a"]) is None
    assert router.pick(about("a"), [A, B], 0.0, tried=["a", "b"]) is None


def test_tried_ones_are_left_out_however_near() -> None:
    router = Router[Server]()
    router.ended(router.began("a", about("날씨"), 0.0), 10, 1.0)
    assert router.pick(about("날씨"), ALL, 1.0) == A
    assert router.pick(about("날씨"), [A, B], 1.0, tried=["a"]) == B


def test_idle_replicas_take_turns() -> None:
    router = Router[Server]()
    assert [call(router, about(f"{number}번")) for number in range(8)] == list("abcdabcd")


def test_call_goes_where_its_beginning_is_cached() -> None:
    router = Router[Server]()
    homes = {topic: call(router, about(topic)) for topic in ("날씨", "주식", "요리", "여행")}
    assert sorted(homes.values()) == list("abcd")
    for number in range(5):
        for topic in ("여행", "날씨", "요리", "주식"):
            assert call(router, about(topic, f" 질문 {number}"), now=float(number)) == homes[topic]


def test_longest_common_beginning_wins() -> None:
    router = Router[Server]()
    for server, more in ((A, ""), (B, "둘 " * 500), (C, "셋 " * 500)):
        router.ended(router.began(server.id, about("공통", more), 0.0), 0, 0.0)
    assert router.pick(about("공통", "둘 " * 600), ALL, 0.0) == B


def test_session_stays_where_it_is_even_if_its_prompts_do_not_repeat() -> None:
    router = Router[Server]()
    home = call(router, Work(b"short", 100, session="s1"))
    call(router, Work(b"else", 100, session="s2"))
    assert [call(router, Work(b"%d" % turn, 100, session="s1"), now=20.0 * turn) for turn in range(1, 4)] == [home] * 3


def test_nearness_yields_to_load() -> None:
    router, homes = Router[Server](), Counter[str]()
    for _ in range(40):
        homes[send(router, about("날씨"))[0]] += 1
    assert max(homes.values()) <= 1.3 * 40 / len(ALL)


def test_lone_session_need_not_move() -> None:
    """Ten turns, one every 20 s: nobody else wants the replica."""
    router = Router[Server]()
    homes = {call(router, about("혼자", "답 " * 100 * turn), now=20.0 * turn) for turn in range(10)}
    assert len(homes) == 1


def test_fewer_tokens_in_flight_wins_not_fewer_calls() -> None:
    router = Router[Server]()
    router.began("a", about("긴", tokens=8000), 0.0)
    for _ in range(3):
        router.began("b", about("짧", tokens=100), 0.0)
    assert router.pick(about("새", tokens=100), [A, B], 0.0) == B
    assert router.in_flight_tokens("a") == 8000
    assert router.in_flight_tokens("nobody") == 0


@pytest.mark.parametrize("speeds", [(4.0, 1.0), (10.0, 3.0, 1.0), (2.0, 2.0, 1.0, 1.0)])
@pytest.mark.parametrize("in_flight", [1, 40])
def test_work_goes_in_proportion_to_measured_speed(speeds: tuple[float, ...], in_flight: int) -> None:
    router, servers = taught(*speeds)
    given, flights = Counter[str](), list[Flight]()
    for number in range(1000):
        name, flight = send(router, about(f"{number}번"), servers, now=number / 100)
        given[name] += 1
        flights.append(flight)
        if len(flights) == in_flight:
            router.ended(flights.pop(0), 0, number / 100)
    for server, speed in zip(servers, speeds, strict=True):
        assert given[server.id] == pytest.approx(1000 * speed / sum(speeds), rel=0.15, abs=10)


def test_unknown_speed_counts_as_the_mean_of_the_known() -> None:
    router, servers = taught(3.0, 1.0)
    assert router.speed("c") is None
    given = Counter(call(router, about(f"{number}번"), [*servers, C], now=number / 100) for number in range(600))
    assert given["c"] == pytest.approx(600 * 2 / 6, rel=0.1)


def test_speed_needs_several_calls_and_follows_change() -> None:
    router = Router[Server]()
    router.ended(router.began("a", about("첫"), 0.0), 10, 25.0)
    assert router.speed("a") is None, "the first call of a cold engine says little"
    for number in range(200):
        flight = router.began("a", about("후"), number)
        router.first_token(flight, number + 0.5)
        router.ended(flight, 50, number + 1.5)
    assert router.speed("a") == pytest.approx(50, rel=0.05), "the time to the first token is not counted"


def test_speed_is_not_taken_for_lower_because_many_calls_share_it() -> None:
    """A step takes 20 ms for one call and 40 ms for 32: each call is half as fast, the engine is not."""
    alone, crowded = Router[Server](), Router[Server]()
    for number in range(20):
        alone.ended(alone.began("a", about("하나"), number), 50, number + 1.0)
    for number in range(20):
        flights = [crowded.began("a", about("여럿"), 10.0 * number) for _ in range(32)]
        for flight in flights:
            crowded.ended(flight, 50, 10.0 * number + 2.0)
    known, shared = alone.speed("a"), crowded.speed("a")
    assert known is not None
    assert shared is not None
    assert 0.7 < shared / known < 1.4


def test_full_cache_costs_a_replica_its_new_calls() -> None:
    router = Router[Server]()
    router.told("a", Pressure(0.99, waiting=12), 0.0)
    assert {call(router, about(f"{number}번"), [A, B]) for number in range(4)} == {"b"}
    assert router.pick(about("새"), [A, B], 60.0) == A, "what was told a minute ago says nothing"


@pytest.mark.parametrize(
    ("pressure", "room"), [(Pressure(0.0), 1), (Pressure(0.5), 1), (Pressure(0.75), 0.5), (Pressure(1.0), 0)]
)
def test_room_is_what_is_left_above_half(pressure: Pressure, room: float) -> None:
    assert pressure.room == pytest.approx(room)
    assert Pressure(pressure.kv_usage, waiting=8).room == pytest.approx(room / 2)


def test_replica_that_goes_leaves_no_memory_but_its_calls_end() -> None:
    router = Router[Server]()
    name, flight = send(router, about("날씨"))
    call(router, about("주식"))
    assert name == "a"
    router.forget({"c", "d"})
    assert router.in_flight_tokens("a") == 500
    assert router.pick(about("날씨"), [A, B], 0.0) == B, "a has no cache any more, and a call"
    router.ended(flight, 10, 1.0)
    router.forget({"c", "d"})
    assert router.in_flight_tokens("a") == 0


def test_only_replica_is_remembered_for_when_there_are_more() -> None:
    router = Router[Server]()
    call(router, about("날씨"), [B])
    assert call(router, about("날씨"), ALL) == "b"


def test_same_facts_give_the_same_choices() -> None:
    def choices() -> list[str]:
        rng, router, flights = seeded(7), Router[Server](), list[Flight]()
        chosen = []
        for number in range(300):
            name, flight = send(router, about(str(rng.randrange(9)), tokens=rng.randrange(50, 900)), now=number / 7)
            chosen.append(name)
            flights.append(flight)
            if rng.random() < 0.8:
                router.ended(flights.pop(rng.randrange(len(flights))), rng.randrange(300), number / 7)
        return chosen

    assert choices() == choices()


@settings(max_examples=40)
@given(
    replicas=st.integers(2, 6),
    popular=st.floats(0, 1),
    topics=st.integers(1, 20),
    at_once=st.integers(1, 60),
    every_s=st.sampled_from([0.0, 0.01, 0.3]),
    seed=st.integers(0, 99),
)
def test_no_replica_gets_more_than_its_fair_share_by_a_third(
    replicas: int, popular: float, topics: int, at_once: int, every_s: float, seed: int
) -> None:
    """However many calls share one prompt and one session, however many run at once; all replicas being equally fast."""
    rng, router, servers = seeded(seed), Router[Server](), [Server(str(number)) for number in range(replicas)]
    given, flights, calls = Counter[str](), list[Flight](), 100 * replicas
    for number in range(calls):
        topic = "인기" if rng.random() < popular else f"{rng.randrange(topics)}번"
        name, flight = send(router, about(topic, session=topic), servers, now=number * every_s)
        given[name] += 1
        flights.append(flight)
        if len(flights) >= at_once:
            router.ended(flights.pop(rng.randrange(len(flights))), 0, number * every_s)
    assert max(given.values()) <= 1.3 * calls / replicas
