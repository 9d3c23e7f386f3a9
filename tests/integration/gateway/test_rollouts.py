"""A candidate on trial over real sockets: openai's own client, two servers, and the report that comes of the ledger."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing

import openai
import pytest

from daemun.rollout_shown import Report, to_json
from daemun.rollouts import read
from gateway.adapters import sqlite
from gateway.adapters.sqlite_ledger import SqliteLedger
from gateway.ledger_query import LedgerQuery
from gateway.policy.cost import NO_RATES
from tests.integration.gateway.conftest import MODEL, Engine, Running, engine_thread
from tests.loopback import LoopbackServer, says
from tests.vllm_stream import Generation, chat

NEW = "daemun-next"
ALL = LedgerQuery(asked=MODEL)


def named(model: str) -> Generation:
    talk = chat("다음", " 대문", "입니다")
    return Generation(talk.chat, talk.n, talk.prompt_tokens, talk.steps, model=model)


@pytest.fixture
def candidate() -> Engine:
    return Engine(named("next.gguf"))


@pytest.fixture
def candidate_server(candidate: Engine) -> Iterator[LoopbackServer]:
    with engine_thread(candidate) as server:
        yield server


@pytest.fixture
def share() -> dict[str, float]:
    return {"canary": 1.0}


@pytest.fixture
def wanted(engine_server: LoopbackServer, candidate_server: LoopbackServer, share: dict[str, float]) -> dict[str, object]:
    """The candidate's server has a name of its own for it."""
    return {
        "fleets": (
            {"kind": "static", "urls": (engine_server.url,), "models": (MODEL,)},
            {"kind": "static", "urls": (candidate_server.url,), "models": {NEW: MODEL}},
        ),
        "rollouts": ({"model": MODEL, "candidate": NEW, **share},),
    }


def client_of(running: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key=running.key, max_retries=0)


def stream_once(running: Running, text: str) -> tuple[str, set[str], float]:
    """What was said, in whose names, and how long it took."""
    began = time.monotonic()
    with client_of(running) as client:
        chunks = list(client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": text}], stream=True))
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    return said, {chunk.model for chunk in chunks}, time.monotonic() - began


def report(running: Running) -> Report:
    with closing(SqliteLedger(sqlite.store_path(running.state_dir))) as store:
        return read(store, NO_RATES, ALL, NEW)


def test_openais_client_reads_the_candidates_answer_in_the_models_name(running: Running) -> None:
    said, names, _ = stream_once(running, "누구세요?")
    assert (said, names) == ("다음 대문입니다", {MODEL})
    with client_of(running) as client:
        answer = client.chat.completions.with_raw_response.create(model=MODEL, messages=[{"role": "user", "content": "?"}])
    assert (answer.parse().model, answer.headers["x-daemun-model-used"]) == (MODEL, NEW)
    entries = running.entries(2)
    assert {(entry.tenant, entry.model, entry.asked) for entry in entries} == {("anna", NEW, MODEL)}
    (way,) = report(running).ways
    assert (way.name, way.sample.completed) == ("canary", 2)


def test_clients_do_not_notice_that_the_candidate_fails_and_the_report_does(running: Running, candidate: Engine) -> None:
    candidate.script = says(b"{}", 500)
    for number in range(3):
        said, names, _ = stream_once(running, f"{number}")
        assert (said, names) == ("안녕하세요. 대문입니다", {MODEL})
    running.entries(6)
    found = report(running)
    (way,) = found.ways
    assert (found.own.completed, way.returned, way.sample.failed) == (3, 3, 3)


class TestShadow:
    @pytest.fixture
    def share(self) -> dict[str, float]:
        return {"shadow": 1.0}

    def test_slow_shadow_is_read_to_its_end_and_its_client_does_not_wait_for_it(
        self, running: Running, candidate: Engine
    ) -> None:
        candidate.every_s = 0.2
        said, names, took_s = stream_once(running, "누구세요?")
        assert (said, names) == ("안녕하세요. 대문입니다", {MODEL})
        shadow, own = sorted(running.entries(2), key=lambda entry: entry.tenant)
        assert (shadow.project, shadow.model, shadow.outcome, shadow.completion_tokens) == ("shadow", NEW, "completed", 4)
        assert own.duration_s <= took_s < shadow.duration_s
        (way,) = report(running).ways
        assert (way.name, way.sample.completed) == ("shadow", 1)
        assert json.dumps(to_json(report(running)))
