"""A gateway's mover sends every entry to a real HTTP server that fails, is slow, goes and comes back; over a restart too."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from gateway.adapters import event_sender
from gateway.adapters.event_sender import EventTarget, Refused, Undeliverable, http_post
from gateway.adapters.journal import Journal, journal_folder
from gateway.adapters.ledger_mover import Orders, open_ledger
from gateway.ledger_query import LedgerQuery
from tests.entries import entry
from tests.postgres_server import PostgresServer

ROOT = Path(__file__).parents[3]
TOKEN = "tok-1"
ALL = LedgerQuery()


@dataclass
class Endpoint:
    """What it was sent; `plan` is what it does with the next requests, and then it takes them: a status, or `hangs`."""

    port: int = 0
    plan: list[int | str] = field(default_factory=list)
    posts: list[tuple[list[str], int | str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    says: bytes = b""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1/events"

    def taken(self) -> list[str]:
        return [name for ids, did in list(self.posts) if did == 204 for name in ids]

    @contextmanager
    def running(self) -> Iterator[Endpoint]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                did = endpoint.plan.pop(0) if endpoint.plan else 204
                decoded = json.loads(content)
                ids = [event["id"] for event in decoded] if isinstance(decoded, list) else []
                endpoint.headers.append(dict(self.headers))
                endpoint.posts.append((ids, did))
                if isinstance(did, str):
                    return  # and the connection ends without an answer
                self.send_response(did)
                self.send_header("Content-Length", str(len(endpoint.says) if did >= 400 else 0))
                self.end_headers()
                if did >= 400:
                    self.wfile.write(endpoint.says)

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


@contextmanager
def mover(orders: Orders) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-P", "-m", "gateway.adapters.ledger_mover"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(orders) + b"\n")
    process.stdin.flush()
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def record(state_dir: Path, names: list[str]) -> None:
    with Journal(journal_folder(state_dir)) as journal:
        for name in names:
            journal.record(entry(id=name, started_at=time.time()))


def until(true: Callable[[], bool], within_s: float = 60) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest) -> str | None:
    if request.param == "sqlite":
        return None
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


def test_every_event_arrives_though_the_endpoint_fails_goes_and_comes_back(store_url: str | None, tmp_path: Path) -> None:
    endpoint = Endpoint(plan=[503, "hangs up", 429, 401])
    names = [f"req_{number}" for number in range(350)]
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    with endpoint.running():
        orders = Orders(str(tmp_path), "nobody", store_url, events=EventTarget(endpoint.url, token_file=str(token)))
        with mover(orders):
            record(tmp_path, names[:200])
            until(lambda: len(endpoint.taken()) >= 100)
        # Killed, with events perhaps on their way; then the endpoint is gone for a while.
    with closing(open_ledger(orders)) as store, mover(orders):
        record(tmp_path, names[200:])
        until(lambda: store.sums(ALL, ())[0].calls == 350)
        with endpoint.running():
            store.put_back_events(names, 0.0)  # what the killed one had taken would be due after two minutes
            until(lambda: not store.count_events())
    taken = endpoint.taken()
    assert set(taken) == set(names)
    assert len(taken) <= len(names) + 2 * event_sender.MOST_AT_ONCE, "only what was on its way comes twice"
    assert {sent["Authorization"] for sent in endpoint.headers} == {f"Bearer {TOKEN}"}
    assert {sent["Content-Type"] for sent in endpoint.headers} == {"application/cloudevents-batch+json"}


@pytest.mark.parametrize(
    ("plan", "target_format", "says", "raised"),
    [
        ([204], "cloudevents", b"", None),
        ([400], "cloudevents", b"", Refused),
        ([422], "lago", b'{"error_details":{"transaction_id":["value_is_invalid"]}}', Refused),
        ([422], "lago", b'{"error_details":{"transaction_id":["value_already_exist"]}}', None),
        ([401], "cloudevents", b"", Undeliverable),
        ([404], "cloudevents", b"", Undeliverable),
        ([500], "lago", b"", Undeliverable),
        (["hangs up"], "cloudevents", b"", Undeliverable),
    ],
)
def test_what_an_answer_means(
    plan: list[int | str], target_format: event_sender.Format, says: bytes, raised: type[Exception] | None
) -> None:
    with Endpoint(plan=plan, says=says).running() as endpoint:
        post = http_post(EventTarget(endpoint.url, target_format))
        if raised is None:
            post(b"[]", "application/json")
            return
        with pytest.raises(raised):
            post(b"[]", "application/json")


def test_endpoint_that_does_not_answer_in_time_or_is_not_there_is_tried_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_sender, "_ANSWER_S", 0.2)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        target = EventTarget(f"http://127.0.0.1:{silent.getsockname()[1]}/")
        with pytest.raises(Undeliverable, match="timed out"):
            http_post(target)(b"[]", "application/json")
    with pytest.raises(Undeliverable, match="refused"):
        http_post(target)(b"[]", "application/json")
    with pytest.raises(Undeliverable, match="No such file"):
        http_post(EventTarget(target.url, token_file="/nowhere/token"))(b"[]", "application/json")
