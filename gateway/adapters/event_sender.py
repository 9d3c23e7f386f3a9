"""Sends ledger entries as events to an HTTP endpoint, such as OpenMeter's or Lago's, from the store's outbox.

At least once, with the call's id as the event's, so that whoever counts twice can tell; in no promised order. What is not
confirmed stays in the outbox, over restarts too. While the endpoint fails, it is asked less and less often; where it refuses a
batch, each event is offered by itself, and one that is refused then waits for an hour without holding up the others.
"""

from __future__ import annotations

import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Literal

import msgspec

from gateway.adapters.schema import StoreUnusable
from gateway.entry import Entry
from gateway.ledger_query import LedgerStore

log = logging.getLogger(__name__)

Format = Literal["cloudevents", "lago"]
TYPE = "daemun.call"  # of a CloudEvent
CODE = "daemun_call"  # Lago's, of a billable metric
MOST_AT_ONCE = 100  # what Lago takes
_LOOK_S = 1.0
_PAUSE_S = 1.0, 60.0
_HELD_S = 120.0  # after this, events that were taken and neither delivered nor put back are anybody's again
_REFUSED_S = 3600.0
_ANSWER_S = 10.0
_FINAL = frozenset({400, 413, 422})  # all others may be over later: 401 too, once the token is right


class EventTarget(msgspec.Struct, frozen=True):
    """Where events go, and how they look there. `source` is what the CloudEvents specification calls so."""

    url: str
    format: Format = "cloudevents"
    source: str = "daemun"
    token_file: str | None = None


class Undeliverable(Exception):
    """It may go later; the message says what happened."""


class Refused(Exception):
    """It will not go as it is."""


Post = Callable[[bytes, str], None]  # a body of that content type; raises Undeliverable or Refused


class EventSender:
    """`send` does one round, at the time given; `run` does them until told to stop."""

    def __init__(self, store: LedgerStore, target: EventTarget, post: Post) -> None:
        self._store = store
        self._target = target
        self._post = post
        self._trouble = ""
        self.pause_s = 0.0  # until the next round is worth it

    def send(self, now: float) -> int:
        """How many events were delivered. Raises StoreUnusable."""
        events = self._store.take_events(MOST_AT_ONCE, now, now + _HELD_S)
        if not events:
            self.pause_s = 0.0
            return 0
        try:
            delivered = self._deliver(events, now)
        except Undeliverable as problem:
            self._store.put_back_events([event.id for event in events], now)
            self.pause_s = min(max(2 * self.pause_s, _PAUSE_S[0]), _PAUSE_S[1])
            self._say(f"Events of the ledger cannot be delivered to {self._target.url} ({problem}); they wait in the outbox.")
            return 0
        self.pause_s = 0.0
        self._say("")
        return delivered

    def run(self, stopped: threading.Event) -> None:
        while not stopped.is_set():
            try:
                busy = self.send(time.time()) > 0
            except StoreUnusable as problem:
                busy = False
                self._say(f"Events of the ledger wait: {problem}")
            if not busy:
                stopped.wait(max(self.pause_s, _LOOK_S))

    def _deliver(self, events: Sequence[Entry], now: float) -> int:
        try:
            self._post(*body(events, self._target))
        except Refused as problem:
            if len(events) > 1:
                return sum(self._deliver([event], now) for event in events)
            self._store.put_back_events([events[0].id], now + _REFUSED_S)
            log.error("The event of call %s is refused by %s (%s).", events[0].id, self._target.url, problem)
            return 0
        self._store.drop_events([event.id for event in events])
        return len(events)

    def _say(self, trouble: str) -> None:
        """Once."""
        if trouble and trouble != self._trouble:
            log.warning("%s", trouble)
        self._trouble = trouble


def body(events: Sequence[Entry], target: EventTarget) -> tuple[bytes, str]:
    """What is posted, and its content type."""
    if target.format == "lago":
        return msgspec.json.encode({"events": [_for_lago(event) for event in events]}), "application/json"
    return msgspec.json.encode([_cloud_event(event, target.source) for event in events]), "application/cloudevents-batch+json"


def http_post(target: EventTarget) -> Post:
    """The token's file is read anew each time."""

    def post(content: bytes, content_type: str) -> None:
        headers = {"Content-Type": content_type, "User-Agent": "daemun"}
        try:
            if target.token_file is not None:
                headers["Authorization"] = f"Bearer {Path(target.token_file).read_text(encoding='ascii').strip()}"
            request = urllib.request.Request(target.url, content, headers)  # noqa: S310 (the operator's http address)
            with urllib.request.urlopen(request, timeout=_ANSWER_S):  # noqa: S310
                return
        except urllib.error.HTTPError as answer:
            with answer:
                said = f"status {answer.code}: {answer.read(300).decode(errors='replace')}"
            if _is_known_to_lago(target, answer.code, said):
                return
            raise (Refused if answer.code in _FINAL else Undeliverable)(said) from answer
        except (OSError, ValueError) as problem:
            raise Undeliverable(str(problem) or type(problem).__name__) from problem

    return post


def _is_known_to_lago(target: EventTarget, status: int, said: str) -> bool:
    """Lago refuses what it has had before, where others only ignore it."""
    return target.format == "lago" and status == 422 and "value_already_exist" in said


def _cloud_event(entry: Entry, source: str) -> dict[str, object]:
    return {
        "specversion": "1.0",
        "id": entry.id,
        "source": source,
        "type": TYPE,
        "subject": entry.tenant or "-",
        "time": datetime.fromtimestamp(entry.started_at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": _data(entry),
    }


def _for_lago(entry: Entry) -> dict[str, object]:
    return {
        "transaction_id": entry.id,
        "external_subscription_id": entry.tenant or "-",
        "code": CODE,
        "timestamp": f"{entry.started_at:.3f}",
        "properties": _data(entry),
    }


def _data(entry: Entry) -> dict[str, object]:
    """Money as text, which no reader rounds."""
    return {
        "project": entry.project,
        "key_id": entry.key_id,
        "model": entry.model,
        "endpoint": entry.endpoint,
        "tier": entry.tier,
        "status": entry.status,
        "outcome": entry.outcome,
        "prompt_tokens": entry.prompt_tokens,
        "cached_tokens": entry.cached_tokens,
        "completion_tokens": entry.completion_tokens,
        "reasoning_tokens": entry.reasoning_tokens,
        "total_tokens": entry.prompt_tokens + entry.completion_tokens,
        "estimated": entry.estimated,
        "cost_krw": f"{Decimal(entry.cost_ukrw).scaleb(-6):f}",
        "energy_wh_estimate": entry.energy_wh,
        "duration_s": entry.duration_s,
    }
