"""The Lua script and its Python model give the same answers to the same asks, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.adapters.redis_link import Script
from gateway.policy.pool import Ask, Given, Pool
from gateway.policy.window import Calendar, Period
from tests.redis_server import redis_server

SCRIPT = Script("exchange")
YEAR_MS = 366 * 86_400_000
WORKERS = ["a", "b", "c-1", "c"]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    folder: Path = tmp_path_factory.mktemp("redis")
    with redis_server(folder) as server, server.client() as client:
        client.script_load(SCRIPT.text)
        yield client


steps = st.fixed_dictionaries(
    {
        "worker": st.sampled_from(WORKERS),
        "later_ms": st.sampled_from([0, 0, 0, 1, 700, 30_000, 61_000, 86_400_000, 40 * 86_400_000]),
        "behind": st.integers(0, 2),
        "limit": st.sampled_from([0, 1, 10, 10, 10, 1000]),
        "told": st.integers(0, 1200),
        "need": st.integers(0, 30),
        "workers": st.integers(1, 4),
        "lasts_ms": st.sampled_from([0, 0, 500]),
        "dead": st.sets(st.sampled_from(WORKERS), max_size=2),
        "stale": st.booleans(),
        "settled": st.integers(0, 300),
        "known": st.integers(-1, 1500),
        "known_behind": st.integers(0, 1),
        "epoch": st.sampled_from([0, 0, 0, 1, 1_800_000_000_000]),
    }
)


@pytest.mark.parametrize("period", list(Period))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(course=st.lists(steps, max_size=25), start_ms=st.integers(0, YEAR_MS), phase_ms=st.integers(0, 59_999))
def test_script_answers_as_the_model_does(
    client: redis.Redis, period: Period, course: list[dict[str, object]], start_ms: int, phase_ms: int
) -> None:
    client.flushdb()
    pool, ahead_ms, window, calendar = Pool(), start_ms, 0, Calendar(phase_ms=phase_ms)
    for number, step in enumerate(course, 1):
        ahead_ms += int(str(step["later_ms"]))
        ask = Ask(
            worker=str(step["worker"]),
            number=1 if step["stale"] else number,
            limit=int(str(step["limit"])),
            period=period,
            calendar=calendar,
            window=max(0, window - int(str(step["behind"]))),
            told=int(str(step["told"])),
            need=int(str(step["need"])),
            workers=int(str(step["workers"])),
            lasts_ms=int(str(step["lasts_ms"])),
            dead=tuple(sorted(step["dead"])),  # type: ignore[call-overload]
            settled=int(str(step["settled"])),
            known=int(str(step["known"])),
            known_window=max(0, window - int(str(step["known_behind"]))),
            epoch=int(str(step["epoch"])),
        )
        now_ms, given = run(client, ask, ahead_ms)
        assert given == pool.exchange(ask, now_ms)
        window = given.window


def run(client: redis.Redis, ask: Ask, ahead_ms: int) -> tuple[int, Given]:
    arguments: list[str | int] = [ask.worker, ask.number, ask.workers, ask.calendar.offset_ms, ahead_ms, ",".join(ask.dead)]
    arguments += [ask.period.value, ask.calendar.phase_ms, ask.limit, ask.window, ask.told, ask.need, ask.lasts_ms]
    arguments += [ask.settled, ask.known, ask.known_window, ask.epoch]
    answer = client.evalsha(SCRIPT.digest, 1, "limit", *arguments)
    now_ms, *figures = answer
    return now_ms, Given(*figures)
