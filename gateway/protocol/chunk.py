"""A chunk of a stream as its raw JSON fields: taking it apart and putting it together without touching what is not looked at.

Not for the hot path: `gateway.protocol.stream_reader` works on bytes and comes here for what is not the ordinary chunk.
"""

from __future__ import annotations

import msgspec

from gateway.protocol.sse import DATA

Fields = dict[str, msgspec.Raw]
NULL = msgspec.Raw(b"null")

_fields = msgspec.json.Decoder(Fields)
_choices = msgspec.json.Decoder(list[Fields])
_number = msgspec.json.Decoder(int)
_text = msgspec.json.Decoder(str)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError)  # the latter where a key is no UTF-8


def fields_of(event: bytes) -> Fields | None:
    """The fields of an event's JSON object in their order; None if it holds no such thing."""
    if not event.startswith(DATA):
        return None
    try:
        return _fields.decode(event[len(DATA) :])
    except _UNREADABLE:
        return None


def choices_of(fields: Fields) -> list[Fields]:
    """The choices of a chunk; none if there is no list of objects."""
    try:
        return _choices.decode(fields.get("choices", NULL))
    except _UNREADABLE:
        return []


def inner(raw: msgspec.Raw) -> Fields:
    """The fields of an object within; none if it is something else."""
    try:
        return _fields.decode(raw)
    except _UNREADABLE:
        return {}


def text_of(raw: msgspec.Raw) -> str:
    """A JSON string's text; empty if it is something else."""
    try:
        return _text.decode(raw)
    except _UNREADABLE:
        return ""


def number_of(raw: msgspec.Raw) -> int:
    """A JSON integer; 0 if it is something else."""
    try:
        return _number.decode(raw)
    except _UNREADABLE:
        return 0


def is_null(raw: msgspec.Raw) -> bool:
    return bytes(raw) == b"null"


def to_raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def to_event(fields: Fields) -> bytes:
    return DATA + msgspec.json.encode(fields) + b"\n\n"
