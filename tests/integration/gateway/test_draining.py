"""SIGTERM to a real gateway process: what runs ends well or is handed back with a word, and then the process ends well too."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from gateway.protocol.openai import UsageWish
from tests.fakes import Script
from tests.gateway_process import GatewayProcess, gateway_process
from tests.integration.gateway.conftest import MODEL, Engine
from tests.integration.gateway.test_gateway import MESSAGES, SAID
from tests.loopback import LoopbackServer
from tests.vllm_stream import chat

SHUTDOWN_S = 1.5
LONG = chat(*(f"낱말{number} " for number in range(1000)))


@pytest.fixture
def running(engine_server: LoopbackServer, tmp_path: Path) -> Iterator[GatewayProcess]:
    settings = {"QUEUE__PLACES_PER_REPLICA": "2", "TIMEOUTS__SHUTDOWN_S": str(SHUTDOWN_S)}
    with gateway_process(engine_server.url, tmp_path, **settings) as made:
        yield made


def until(true: Callable[[], bool], within_s: float) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


class Listening(threading.Thread):
    """A client that streams, and what it got: its text, and the error that ended it."""

    def __init__(self, gateway: GatewayProcess, **fields: Any) -> None:
        super().__init__()
        self.said = ""
        self.error: openai.APIError | None = None
        self._gateway = gateway
        self._fields = fields
        self.start()

    def run(self) -> None:
        try:
            with self._gateway.client as client:
                for chunk in client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, **self._fields):
                    self.said += chunk.choices[0].delta.content or ""
        except openai.APIError as error:
            self.error = error

    def wait_for_its_begin(self) -> None:
        until(lambda: bool(self.said), 10)


def test_stream_that_ends_in_time_ends_as_if_nothing_were(running: GatewayProcess, engine: Engine) -> None:
    engine.every_s = 0.15
    listening = Listening(running)
    listening.wait_for_its_begin()
    running.stop()
    running.ends(5)
    listening.join()
    assert (listening.said, listening.error) == (SAID, None)
    (entry,) = running.entries()
    assert (entry.outcome, entry.completion_tokens) == ("completed", 6)


def test_stream_that_takes_longer_is_handed_back_with_one_event(running: GatewayProcess, engine: Engine) -> None:
    engine.generation, engine.every_s = LONG, 0.02
    body = {"model": MODEL, "messages": MESSAGES, "stream": True}
    headers = {"authorization": f"Bearer {running.key}", "accept-language": "ko"}
    with httpx.stream("POST", f"{running.url}/v1/chat/completions", json=body, headers=headers, timeout=10) as answer:
        lines = answer.iter_lines()
        received = [next(lines)]
        running.stop()
        received += lines
    running.ends(5)
    events = [line for line in received if line.startswith("event:")]
    *data, last = [json.loads(line.removeprefix("data: ")) for line in received if line.startswith("data: ")]
    assert events == ["event: error"]
    assert last["error"]["code"] == "server_stopping"
    assert "종료" in last["error"]["message"]
    assert not any("error" in chunk for chunk in data)
    (entry,) = running.entries()
    assert (entry.outcome, entry.error_code, entry.status) == ("failed", "server_stopping", 200)
    assert entry.completion_tokens == sum(bool(chunk["choices"][0]["delta"].get("content")) for chunk in data)
    assert entry.duration_s is not None
    assert entry.duration_s > SHUTDOWN_S


def test_official_client_raises_on_a_stream_that_is_handed_back(running: GatewayProcess, engine: Engine) -> None:
    engine.generation, engine.every_s = LONG, 0.02
    listening = Listening(running)
    listening.wait_for_its_begin()
    running.stop()
    running.ends(5)
    listening.join()
    assert listening.error is not None
    assert listening.error.code == "server_stopping"


def test_what_runs_or_waits_without_an_answer_yet_is_told_to_come_again(running: GatewayProcess, engine: Engine) -> None:
    engine.script = Script(pieces=tuple(LONG.events(UsageWish.EVERY_CHUNK)[:3]), end="hangs", every_s=0)
    streaming = Listening(running)
    streaming.wait_for_its_begin()
    engine.script = Script(head="hangs")
    running_and_waiting = [Listening(running), Listening(running)]  # there are two places
    time.sleep(0.3)
    running.stop()
    running.ends(5)
    for listening in running_and_waiting:
        listening.join()
        assert isinstance(listening.error, openai.InternalServerError)
        assert (listening.error.status_code, listening.error.code) == (503, "server_stopping")
        assert listening.error.response.headers["retry-after"] == "1"
    entries = running.entries()
    assert sorted(entry.status for entry in entries) == [200, 503, 503]
    assert {(entry.outcome, entry.error_code) for entry in entries} == {("failed", "server_stopping")}
    assert sum(entry.queue_s is None for entry in entries) == 1


def test_no_call_is_taken_while_it_drains_and_it_is_not_ready(running: GatewayProcess, engine: Engine) -> None:
    """New connections are refused, kept ones get an answer: the next call goes elsewhere, whether clients or balancers choose."""
    engine.generation, engine.every_s = chat(*"꽤 긴 이야기이다."), 0.1
    probe, caller, unused = running.kept(), running.kept(), running.kept()
    listening = Listening(running)
    listening.wait_for_its_begin()
    running.stop()
    time.sleep(0.4)
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", running.port)):
        pass
    for connection, method, path in ((probe, "GET", "/health/ready"), (caller, "POST", "/v1/chat/completions")):
        connection.request(method, path, b"{}" if method == "POST" else None)
        answer = connection.getresponse()
        assert (answer.status, answer.headers["retry-after"], answer.headers["connection"]) == (503, "1", "close")
        assert json.load(answer)["error"]["code"] == "server_stopping"
    running.ends(5)
    listening.join()
    assert (listening.said, listening.error) == ("꽤 긴 이야기이다.", None)
    assert [entry.outcome for entry in running.entries()] == ["completed"]
    for connection in (probe, caller, unused):
        connection.close()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_idle_process_ends_at_once(running: GatewayProcess, signum: signal.Signals) -> None:
    kept = running.kept()
    began = time.monotonic()
    running.process.send_signal(signum)
    running.ends(5)
    assert time.monotonic() - began < 1.5
    kept.close()


def test_client_that_reads_nothing_does_not_hold_up_the_end(running: GatewayProcess, engine: Engine) -> None:
    engine.script = Script(pieces=tuple(chat(*["x" * 32_000] * 2000).events(UsageWish.EVERY_CHUNK)), every_s=0)
    body = json.dumps({"model": MODEL, "messages": MESSAGES, "stream": True}).encode()
    fixed = ["POST /v1/chat/completions HTTP/1.1", "host: x", f"authorization: Bearer {running.key}"]
    head = "\r\n".join([*fixed, f"content-length: {len(body)}", "", ""])
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        connection.sendall(head.encode() + body)
        time.sleep(0.5)
        running.stop()
        running.process.wait(SHUTDOWN_S + 4)
    assert running.process.returncode == 0
    (entry,) = running.entries()
    assert (entry.outcome, entry.error_code) == ("failed", "server_stopping")
    assert entry.completion_tokens > 0
