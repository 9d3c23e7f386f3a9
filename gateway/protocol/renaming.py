"""Answers of one model in the name of another: whoever asks for a model that has a rollout hears of no other one.

The name stands at the top of whole answers and of chunks, and in `response` and `message` of the events of other streams, which
are OpenAI's and Anthropic's. It is put in as soon as an event is read, so that what goes on elsewhere goes on in the same name.
"""

from __future__ import annotations

import msgspec

from gateway.protocol.chunk import Fields, to_raw
from gateway.protocol.sse import DATA, EventSplitter

_NAME = "model"
_WITHIN = ("response", "message")
_fields = msgspec.json.Decoder(Fields)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError)


def renamed(body: bytes, name: str) -> bytes:
    """A JSON object with that model's name where it names one. What is no such thing passes as it is."""
    raw = to_raw(name)
    try:
        fields = _fields.decode(body)
        if _NAME in fields:
            return msgspec.json.encode(_with(fields, _NAME, raw))
        for within in _WITHIN:
            if bytes(fields.get(within, raw))[:1] == b"{":
                inner = _fields.decode(fields[within])
                if _NAME in inner:
                    return msgspec.json.encode(_with(fields, within, to_raw(_with(inner, _NAME, raw))))
    except _UNREADABLE:
        return body
    return body


class RenamingSplitter(EventSplitter):
    """Hands out events in the name of that model."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def feed(self, data: bytes) -> list[bytes]:
        events = super().feed(data)
        return [self._renamed(event) for event in events]

    def _renamed(self, event: bytes) -> bytes:
        at = event.find(DATA)
        if at < 0:
            return event
        begin = at + len(DATA)
        return event[:begin] + renamed(event[begin:-2], self._name) + b"\n\n"


def _with(fields: Fields, name: str, value: msgspec.Raw) -> Fields:
    fields[name] = value
    return fields
