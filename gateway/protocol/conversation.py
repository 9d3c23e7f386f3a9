"""Who is calling, for whatever is to stay as it is for the length of a conversation.

A conversation is known by its key, by what the client says of its own user (`user`, `safety_identifier`, `prompt_cache_key`, and
Anthropic's `metadata`), and by its first turn of the user, which every later call repeats. What stands before that turn does not
count: many system prompts have the time of day in them. Text that is no conversation is known by its beginning.
"""

from __future__ import annotations

import msgspec

from gateway.protocol.openai import Request

_TURNS = ("messages", "input")
_USERS = ("user", "safety_identifier", "prompt_cache_key", "metadata")
_BEGINNING_BYTES = 256

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list = msgspec.json.Decoder(list[msgspec.Raw])


class _Turn(msgspec.Struct, frozen=True):
    role: str = ""


_turn = msgspec.json.Decoder(_Turn)


def caller(key_id: str, request: Request) -> bytes:
    """The same for each call of one conversation, and for as good as no others'."""
    fields = _fields.decode(request.own_body)
    said = [bytes(fields[name]) for name in _USERS if name in fields]
    turns = next((fields[name] for name in _TURNS if name in fields), None)
    first = None if turns is None else _first_turn(turns)
    return b"\0".join([key_id.encode(), *said, request.prompt[:_BEGINNING_BYTES] if first is None else first])


def keeps_its_answer(request: Request) -> bool:
    """Whether the client asks that the server keep the answer, as OpenAI's own does."""
    return bytes(_fields.decode(request.own_body).get("store", b"null")) not in (b"null", b"false")


def _first_turn(turns: msgspec.Raw) -> bytes | None:
    """The user's first, as it was sent; all of it where the input is one text."""
    try:
        return next((bytes(turn) for turn in _list.decode(turns) if _role(turn) == "user"), None)
    except msgspec.DecodeError:
        return bytes(turns)


def _role(turn: msgspec.Raw) -> str:
    try:
        return _turn.decode(turn).role
    except msgspec.DecodeError:
        return ""
