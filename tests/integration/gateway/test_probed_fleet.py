"""A fleet's looks at a list and at real servers, one look at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
import pytest

from gateway.adapters.probed_fleet import Listing, ListUnreadable, ProbedFleet, Target
from gateway.adapters.static_discovery import StaticDiscovery
from gateway.policy.breaker import FAILED_CALLS, SILENT_PROBES
from gateway.policy.routing import Pressure
from gateway.ports import Replica
from gateway.protocol.plain import Engine as Running
from tests.fakes import Script
from tests.loopback import LoopbackServer, Request, loopback, says

MODELS = '{"object":"list","data":[{"id":"solar","object":"model","owned_by":"vllm"},{"id":"한국어","owned_by":"vllm"}]}'.encode()


@dataclass(eq=False)
class FakeDiscovery:
    found: Listing | ListUnreadable = field(default_factory=Listing)

    async def listing(self, session: aiohttp.ClientSession) -> Listing:
        if isinstance(self.found, ListUnreadable):
            raise self.found
        return self.found


@dataclass
class Engine:
    """A replica that answers its probes as told."""

    health: Script = field(default_factory=lambda: says(b""))
    models: Script = field(default_factory=lambda: says(MODELS))
    metrics: Script = field(default_factory=lambda: says(b"", 404))

    def act(self, request: Request) -> Script:
        return {"/health": self.health, "/metrics": self.metrics}.get(request.path, self.models)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.3)) as opened:
        yield opened


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
async def server(engine: Engine) -> AsyncIterator[LoopbackServer]:
    async with loopback(engine.act) as acting:
        yield acting


def fleet_of(*discoveries: FakeDiscovery | StaticDiscovery) -> ProbedFleet:
    return ProbedFleet(discoveries, look_s=60, probe_timeout_s=9)  # the sessions here have a shorter one


def ids(fleet: ProbedFleet, model: str = "solar") -> list[str]:
    return [replica.id for replica in fleet.ready(model)]


async def test_listed_server_that_answers_is_ready_for_its_models(server: LoopbackServer, session: aiohttp.ClientSession) -> None:
    fleet, told = fleet_of(FakeDiscovery(Listing([Target("r1", server.url)], {"solar": "running"}))), list[str]()
    fleet.on_change(told.append)
    assert fleet.waiting_for() == ["a first model: the fleet has none yet"]
    await fleet.look(session)
    assert fleet.ready("solar") == (Replica("r1", "solar", server.url),)
    assert list(fleet.models()) == ["solar", "한국어"]
    assert fleet.waiting_for() == []
    assert sorted(told) == ["solar", "한국어"]
    await fleet.look(session)
    assert len(told) == 2, "no change, nothing told"
    assert [request.path for request in server.requests].count("/v1/models") == 1


async def test_broken_connection_takes_a_replica_out_at_once_and_a_probe_brings_it_back(
    server: LoopbackServer, session: aiohttp.ClientSession
) -> None:
    fleet, told = fleet_of(StaticDiscovery([server.url], ["solar"])), list[str]()
    await fleet.look(session)
    fleet.on_change(told.append)
    (replica,) = fleet.ready("solar")
    fleet.connection_broke(replica)
    assert ids(fleet) == []
    assert sorted(told) == ["solar", "한국어"], "it served both"
    assert fleet.waiting_for()[0] == "a ready replica of solar (static)"
    await fleet.look(session)
    assert ids(fleet) == [server.url]


async def test_replicas_that_were_never_ready_are_starting_those_that_died_are_not(
    engine: Engine, server: LoopbackServer, session: aiohttp.ClientSession
) -> None:
    discovery = FakeDiscovery(Listing((), {"solar": "deploying"}))
    fleet, told = fleet_of(discovery), list[str]()
    fleet.on_change(told.append)
    await fleet.look(session)
    assert (fleet.starting("solar"), fleet.starting("other"), told) == (1, 0, ["solar"]), "by the list's own word"
    discovery.found = Listing([Target("r1", server.url), Target("r2", server.url)], {"solar": "running"})
    engine.health = says(b"", 503)
    await fleet.look(session)
    assert (fleet.starting("solar"), told) == (2, ["solar"] * 2)
    engine.health = says(b"")
    await fleet.look(session)
    assert (fleet.starting("solar"), len(ids(fleet))) == (0, 2)
    for replica in fleet.ready("solar"):
        fleet.connection_broke(replica)
    assert (fleet.starting("solar"), ids(fleet)) == (0, [])


async def test_connection_that_breaks_during_a_probe_outweighs_its_answer(
    engine: Engine, server: LoopbackServer, session: aiohttp.ClientSession
) -> None:
    fleet = fleet_of(StaticDiscovery([server.url], ["solar"]))
    await fleet.look(session)
    engine.health = Script(pieces=(b"ok",), every_s=0.05)
    looking = asyncio.create_task(fleet.look(session))
    await asyncio.sleep(0.02)
    fleet.connection_broke(fleet.ready("solar")[0])
    await looking
    await fleet.look(session)
    assert ids(fleet) == [server.url], "the next probe counts again"


async def test_unknown_replica_breaks_nothing(session: aiohttp.ClientSession) -> None:
    fleet_of(FakeDiscovery()).connection_broke(Replica("gone", "solar", "http://gone"))


@pytest.mark.parametrize("health", [says(b"", 503), Script(head="reset")])
async def test_refused_probe_takes_a_replica_out(
    engine: Engine, server: LoopbackServer, session: aiohttp.ClientSession, health: Script
) -> None:
    fleet = fleet_of(StaticDiscovery([server.url], ["solar"]))
    await fleet.look(session)
    engine.health = health
    await fleet.look(session)
    assert ids(fleet) == []


async def test_silent_probes_take_a_replica_out_only_in_a_row(
    engine: Engine, server: LoopbackServer, session: aiohttp.ClientSession
) -> None:
    fleet = fleet_of(StaticDiscovery([server.url], ["solar"]))
    await fleet.look(session)
    engine.health = Script(head="hangs")
    ready = []
    for _ in range(SILENT_PROBES):
        await fleet.look(session)
        ready.append(bool(ids(fleet)))
    assert ready == [True] * (SILENT_PROBES - 1) + [False]


async def test_gateway_that_is_too_busy_to_hear_blames_no_replica(
    engine: Engine, server: LoopbackServer, session: aiohttp.ClientSession
) -> None:
    """Its loop is held up in the middle of every probe, so that each is over its time when the answer is read."""
    fleet = ProbedFleet([StaticDiscovery([server.url], [])], look_s=9, probe_timeout_s=0.3)
    await fleet.look(session)
    engine.health = Script(head="hangs")
    for _ in range(SILENT_PROBES + 1):
        asyncio.get_running_loop().call_later(0.1, time.sleep, 0.5)
        await fleet.look(session)
    assert ids(fleet) == [server.url]


@pytest.mark.parametrize("models", [says(b"<html>"), says(b"{}", 404), says(b'{"data":[]}'), Script(head="reset")])
async def test_server_that_names_no_models_gets_no_calls_until_it_does(
    engine: Engine, server: LoopbackServer, session: aiohttp.ClientSession, models: Script
) -> None:
    engine.models = models
    fleet = fleet_of(StaticDiscovery([server.url + "/"], ["solar"]))
    await fleet.look(session)
    assert ids(fleet) == []
    assert list(fleet.models()) == ["solar"]
    engine.models = says(MODELS)
    await fleet.look(session)
    assert fleet.ready("solar")[0].base_url == server.url


async def test_unreadable_list_keeps_the_last_one(server: LoopbackServer, session: aiohttp.ClientSession) -> None:
    discovery = FakeDiscovery(Listing([Target("r1", server.url)], {"solar": "running"}))
    fleet = fleet_of(discovery)
    await fleet.look(session)
    listed = discovery.found
    discovery.found = ListUnreadable("Ray Serve (not reachable)")
    await fleet.look(session)
    assert ids(fleet) == ["r1"]
    assert fleet.waiting_for() == ["Ray Serve (not reachable)"]
    discovery.found = listed
    await fleet.look(session)
    assert fleet.waiting_for() == []


async def test_one_unreadable_list_leaves_the_others_alone(server: LoopbackServer, session: aiohttp.ClientSession) -> None:
    fleet = fleet_of(FakeDiscovery(ListUnreadable("no")), StaticDiscovery([server.url], ["solar"]))
    await fleet.look(session)
    assert ids(fleet) == [server.url]


async def test_replica_that_leaves_the_list_leaves_the_fleet(server: LoopbackServer, session: aiohttp.ClientSession) -> None:
    discovery = FakeDiscovery(Listing([Target("r1", server.url)], {"solar": "running"}))
    fleet = fleet_of(discovery)
    await fleet.look(session)
    discovery.found = Listing([], {"solar": "deploying"})
    await fleet.look(session)
    assert ids(fleet) == []
    assert "a ready replica of solar (deploying)" in fleet.waiting_for()
    assert "solar" in fleet.models(), "calls wait for it"


async def test_replica_that_moves_must_prove_itself_anew(server: LoopbackServer, session: aiohttp.ClientSession) -> None:
    discovery = FakeDiscovery(Listing([Target("r1", server.url)]))
    fleet = fleet_of(discovery)
    await fleet.look(session)
    discovery.found = Listing([Target("r1", "http://127.0.0.1:9")])
    await fleet.look(session)
    assert ids(fleet) == []


async def test_fleet_looks_by_itself_while_its_block_lasts(engine: Engine, server: LoopbackServer) -> None:
    engine.health = says(b"", 503)
    ready = asyncio.Event()
    fleet = ProbedFleet([StaticDiscovery([server.url], ["solar"])], look_s=0.01, probe_timeout_s=1)
    fleet.on_change(lambda model: ready.set() if fleet.ready(model) else None)
    async with fleet:
        await asyncio.sleep(0.05)
        engine.health = says(b"")
        await asyncio.wait_for(ready.wait(), 2)
    assert ids(fleet) == [server.url]


async def test_model_that_the_list_drops_is_unknown_again(server: LoopbackServer, session: aiohttp.ClientSession) -> None:
    discovery = FakeDiscovery(Listing((), {"solar": "running", "kanana": "deploying"}))
    fleet = fleet_of(discovery)
    await fleet.look(session)
    assert fleet.models() == ("solar", "kanana")
    discovery.found = Listing((), {"kanana": "deploying"})
    await fleet.look(session)
    assert fleet.models() == ("kanana",)


def failing(fleet: ProbedFleet, replica: Replica, times: int = FAILED_CALLS) -> None:
    for _ in range(times):
        fleet.call_began(replica)
        fleet.call_failed(replica)


async def test_replica_whose_calls_fail_takes_no_more_though_its_probes_are_answered(
    engine: Engine, server: LoopbackServer, session: aiohttp.ClientSession
) -> None:
    async with loopback(engine.act) as other:
        fleet, told = fleet_of(StaticDiscovery([server.url, other.url], ["solar"])), list[str]()
        await fleet.look(session)
        fleet.on_change(told.append)
        (sick, _) = fleet.ready("solar")
        failing(fleet, sick, FAILED_CALLS - 1)
        assert ids(fleet) == [server.url, other.url]
        failing(fleet, sick, 1)
        assert ids(fleet) == [other.url]
        assert sorted(told) == ["solar", "한국어"]
        await fleet.look(session)
        assert ids(fleet) == [other.url]


async def test_successful_call_between_failures_keeps_a_replica(server: LoopbackServer, session: aiohttp.ClientSession) -> None:
    fleet = fleet_of(StaticDiscovery([server.url], ["solar"]))
    await fleet.look(session)
    (replica,) = fleet.ready("solar")
    for _ in range(3):
        failing(fleet, replica, FAILED_CALLS - 1)
        fleet.call_succeeded(replica)
    assert ids(fleet) == [server.url]


async def test_last_replica_alive_is_kept_however_its_calls_fail(
    engine: Engine, server: LoopbackServer, session: aiohttp.ClientSession
) -> None:
    fleet = fleet_of(StaticDiscovery([server.url], ["solar"]))
    await fleet.look(session)
    failing(fleet, fleet.ready("solar")[0], 3 * FAILED_CALLS)
    assert ids(fleet) == [server.url]
    engine.health = says(b"", 503)
    await fleet.look(session)
    assert ids(fleet) == []


async def test_draining_is_noticed_while_calls_come_and_go(
    engine: Engine, server: LoopbackServer, session: aiohttp.ClientSession
) -> None:
    fleet = fleet_of(StaticDiscovery([server.url], ["solar"]))
    await fleet.look(session)
    (replica,) = fleet.ready("solar")
    engine.health = Script(pieces=(b"draining",), status=503, every_s=0.05)
    looking = asyncio.create_task(fleet.look(session))
    await asyncio.sleep(0.02)
    fleet.call_failed(replica)
    await looking
    assert ids(fleet) == []


async def test_engine_is_asked_how_full_it_is(server: LoopbackServer, engine: Engine, session: aiohttp.ClientSession) -> None:
    fleet, told = fleet_of(StaticDiscovery([server.url], ["solar"])), list[tuple[str, Pressure]]()
    fleet.on_pressure(lambda replica_id, pressure: told.append((replica_id, pressure)))
    await fleet.gauge(session)
    assert not server.requests, "nothing is asked of a replica that is not alive"
    await fleet.look(session)
    engine.metrics = says(b'vllm:kv_cache_usage_perc{engine="0"} 0.5\nvllm:num_requests_waiting{engine="0"} 2.0\n')
    await fleet.gauge(session)
    await fleet.gauge(session)
    assert told == [(server.url, Pressure(0.5, waiting=2))] * 2


@pytest.mark.parametrize("metrics", [says(b"", 404), says(b"python_info 1.0\n"), Script(head="hangs"), Script(head="reset")])
async def test_server_without_such_metrics_is_ready_and_left_alone(
    server: LoopbackServer, engine: Engine, session: aiohttp.ClientSession, metrics: Script
) -> None:
    fleet, told = fleet_of(StaticDiscovery([server.url], ["solar"])), list[str]()
    fleet.on_pressure(lambda replica_id, _: told.append(replica_id))
    await fleet.look(session)
    engine.metrics = metrics
    for _ in range(3):
        await fleet.gauge(session)
    assert ids(fleet) == [server.url]
    assert not told
    asked = [request.path for request in server.requests].count("/metrics")
    assert 1 <= asked <= 2, "aiohttp asks again where a kept connection was reset"


async def test_server_without_an_address_for_its_health_is_judged_by_its_list(session: aiohttp.ClientSession) -> None:
    engine = Engine(health=says(b'{"detail":"Not Found"}', 404))
    async with loopback(engine.act) as server:
        fleet = fleet_of(StaticDiscovery([server.url], ["solar"]))
        await fleet.look(session)
        assert ids(fleet) == [server.url]
        engine.models = says(b"", 500)
        await fleet.look(session)
        assert ids(fleet) == []


@pytest.mark.parametrize(("owner", "told", "runs"), [("vllm", None, "vllm"), ("me", None, "other"), ("me", "vllm", "vllm")])
async def test_what_a_server_runs_is_told_by_its_list_or_by_the_operator(
    session: aiohttp.ClientSession, owner: str, told: str | None, runs: str
) -> None:
    engine = Engine(models=says(f'{{"data":[{{"id":"tiny.gguf","owned_by":"{owner}"}}]}}'.encode()))
    async with loopback(engine.act) as server:
        fleet = fleet_of(StaticDiscovery([server.url], {"our-tiny": "tiny.gguf"}, Running(told) if told else None))
        await fleet.look(session)
        assert list(fleet.models()) == ["our-tiny"]
        assert fleet.ready("our-tiny") == (Replica(server.url, "our-tiny", server.url, Running(runs), "tiny.gguf"),)


async def test_server_may_come_back_with_another_model(session: aiohttp.ClientSession) -> None:
    engine = Engine()
    async with loopback(engine.act) as server:
        fleet = fleet_of(StaticDiscovery([server.url], []))
        await fleet.look(session)
        fleet.connection_broke(fleet.ready("solar")[0])
        assert "solar" in fleet.models(), "until it is known to be another"
        engine.models = says(b'{"data":[{"id":"kanana"}]}')
        await fleet.look(session)
        assert ids(fleet, "kanana") == [server.url]
        assert ids(fleet, "solar") == []
