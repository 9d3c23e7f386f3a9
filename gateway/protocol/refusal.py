"""What an engine says is wrong with a request, made fit for the client: one line, and the name of the field.

vLLM 0.29 says it in four ways: OpenAI's error body, Anthropic's (without a field), a report of FastAPI's validation as the text
of either, and plain FastAPI's `{"detail": …}`; other servers put a mere text into `error`. A report repeats what it complains
about, so it can be far longer than the request; its beginning is enough, cut off where it may be.
"""

from __future__ import annotations

import re

import msgspec

from gateway.protocol.sse import DATA, ENGINE_ERROR

MOST_BYTES = 64 * 1024  # of a refusal that are worth reading
_FIRST_OF_REPORT = 4096  # its first item's place and words; what follows is the client's own
_LONGEST_MESSAGE = 1000
_REPORTED = re.compile(r"""^\d+ validation errors?:.*?'loc': \(([^)]*)\).*?'msg': (?:'([^']*)'|"([^"]*)")""", re.DOTALL)
_PARAMETER = re.compile(r" ?\(parameter=(\w+), value=.*\)$", re.DOTALL)
_SEGMENT = re.compile(r"'([^']*)'|(\d+)")


class Refusal(msgspec.Struct, frozen=True):
    message: str = "it gave no reason"
    param: str | None = None


class _Body(msgspec.Struct, frozen=True):
    error: Refusal | str = Refusal()
    detail: str | None = None


class _Failure(msgspec.Struct, frozen=True):
    code: int | None = None


class _Failed(msgspec.Struct, frozen=True):
    error: _Failure


_bodies = msgspec.json.Decoder(_Body)
_failed = msgspec.json.Decoder(_Failed)


def read(body: bytes) -> Refusal:
    """The refusal in an engine's answer, or in its first bytes."""
    said = _decoded(body)
    reported = _REPORTED.match(said.message[:_FIRST_OF_REPORT])
    if reported:
        location, single, double = reported.groups()
        param = _field(said.param) or _field(".".join(name or index for name, index in _SEGMENT.findall(location)))
        message = (single or double or "")[:_LONGEST_MESSAGE]
        return Refusal(f"{param}: {message}" if param else message, param)
    parameter = _PARAMETER.search(said.message)
    message = said.message[: parameter.start()] if parameter else said.message
    return Refusal(" ".join(message.split())[:_LONGEST_MESSAGE], _field(said.param) or (parameter[1] if parameter else None))


def is_engines_fault(event: bytes) -> bool:
    """Whether a stream's event says that the engine failed; of what is wrong with the request another would say the same."""
    if not event.startswith(ENGINE_ERROR):
        return False
    try:
        code = _failed.decode(event[len(DATA) :]).error.code
    except msgspec.DecodeError:
        return True
    return code is None or code >= 500


def _decoded(body: bytes) -> Refusal:
    for whole in (body, *_closed(body)):
        try:
            said = _bodies.decode(whole)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        error = Refusal(said.error) if isinstance(said.error, str) else said.error
        said_at_all = Refusal(said.detail) if said.detail else error
        return said_at_all if said_at_all.message.strip() else Refusal(param=said_at_all.param)
    return Refusal()


def _closed(body: bytes) -> list[bytes]:
    """A body that was cut off within its message, closed: before a character or an escape that may be cut through."""
    return [body[:end] + b'"}}' for end in range(len(body), max(0, len(body) - 12), -1)]


def _field(location: str | None) -> str | None:
    """Pydantic's location without what is no part of the request: `body`, and the names of types that were tried."""
    names = (location or "").removeprefix("body").strip(".").split(".")
    return ".".join(name for name in names if name and not name[0].isupper() and "[" not in name) or None
