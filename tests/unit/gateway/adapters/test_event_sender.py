"""Every entry becomes an event that is delivered at least once, as the endpoint's makers write it, whatever the endpoint does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.adapters.event_sender import EventSender, EventTarget, Refused, Undeliverable, body
from gateway.adapters.sqlite_ledger import SqliteLedger
from tests.entries import entry, rows

OPENMETER = EventTarget("http://openmeter/api/v1/events", source="대문")
LAGO = EventTarget("http://lago/api/v1/events/batch", "lago")


class FakeEndpoint:
    """Takes what it is sent, or fails as told; `refuses` are events that it will never take."""

    def __init__(self) -> None:
        self.posts: list[list[str]] = []
        self.failing = False
        self.refuses: set[str] = set()

    def post(self, content: bytes, content_type: str) -> None:
        ids = [event["id"] for event in msgspec.json.decode(content)]
        self.posts.append(ids)
        if self.failing:
            raise Undeliverable("status 503")
        if self.refuses & set(ids):
            raise Refused("status 400")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteLedger]:
    with closing(SqliteLedger(tmp_path / "store.sqlite3", with_events=True)) as opened:
        yield opened


@pytest.fixture
def endpoint() -> FakeEndpoint:
    return FakeEndpoint()


@pytest.fixture
def sender(store: SqliteLedger, endpoint: FakeEndpoint) -> EventSender:
    return EventSender(store, OPENMETER, endpoint.post)


def write(store: SqliteLedger, *numbers: int) -> None:
    store.write(rows(map(entry, numbers)))


NOW = 1763800010.0


def test_events_are_delivered_in_batches_and_leave_the_outbox(
    store: SqliteLedger, endpoint: FakeEndpoint, sender: EventSender
) -> None:
    write(store, *range(250))
    assert [sender.send(NOW) for _ in range(4)] == [100, 100, 50, 0]
    assert [len(post) for post in endpoint.posts] == [100, 100, 50]
    assert sorted(name for post in endpoint.posts for name in post) == sorted(f"req_{number}" for number in range(250))
    assert store.count_events() == 0


def test_endpoint_that_fails_is_asked_less_and_less_and_gets_all_of_it_later(
    store: SqliteLedger, endpoint: FakeEndpoint, sender: EventSender, caplog: pytest.LogCaptureFixture
) -> None:
    write(store, 1, 2)
    endpoint.failing = True
    pauses = []
    for _ in range(9):
        assert sender.send(NOW) == 0
        pauses.append(sender.pause_s)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert caplog.text.count("they wait in the outbox") == 1, "it is said once"
    assert store.count_events() == 2
    endpoint.failing = False
    assert sender.send(NOW) == 2
    assert sender.pause_s == 0.0
    assert endpoint.posts[-1] == ["req_1", "req_2"]


def test_event_that_is_refused_holds_up_no_other_and_is_offered_again_in_an_hour(
    store: SqliteLedger, endpoint: FakeEndpoint, sender: EventSender, caplog: pytest.LogCaptureFixture
) -> None:
    write(store, 1, 2, 3)
    endpoint.refuses = {"req_2"}
    assert sender.send(NOW) == 2
    assert "The event of call req_2 is refused" in caplog.text
    assert sender.send(NOW + 3599) == 0
    endpoint.refuses = set()
    assert sender.send(NOW + 3600) == 1
    assert store.count_events() == 0


def test_sender_that_is_killed_before_it_knows_leaves_the_event_for_the_next(store: SqliteLedger, endpoint: FakeEndpoint) -> None:
    write(store, 1)

    def post_and_die(content: bytes, content_type: str) -> None:
        endpoint.post(content, content_type)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        EventSender(store, OPENMETER, post_and_die).send(NOW)
    following = EventSender(store, OPENMETER, endpoint.post)
    assert following.send(NOW + 119) == 0, "it may still be on its way"
    assert following.send(NOW + 120) == 1
    assert endpoint.posts == [["req_1"], ["req_1"]], "twice, and with the same id"


def test_cloud_events_are_as_the_specification_and_openmeter_want_them() -> None:
    content, content_type = body([entry(1, started_at=1763800000.25)], OPENMETER)
    assert content_type == "application/cloudevents-batch+json"
    (event,) = msgspec.json.decode(content)
    data: dict[str, Any] = event.pop("data")
    assert event == {
        "specversion": "1.0",
        "id": "req_1",
        "source": "대문",
        "type": "daemun.call",
        "subject": "school",
        "time": "2025-11-22T08:26:40.250Z",
        "datacontenttype": "application/json",
    }
    assert (data["model"], data["project"], data["tier"], data["outcome"]) == ("대문", "homework", "paid", "completed")
    counts = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens", "total_tokens")
    assert [data[name] for name in counts] == [1000, 400, 200, 50, 1200]
    assert (data["cost_krw"], data["energy_wh_estimate"], data["estimated"]) == ("1.234567", 0.25, False)


def test_lagos_events_are_as_lago_wants_them() -> None:
    content, content_type = body([entry(1, started_at=1763800000.25)], LAGO)
    assert content_type == "application/json"
    (event,) = msgspec.json.decode(content)["events"]
    assert (event["transaction_id"], event["external_subscription_id"], event["code"]) == ("req_1", "school", "daemun_call")
    assert event["timestamp"] == "1763800000.250"
    assert event["properties"]["completion_tokens"] == 200
