"""What is read from and written into HTTP messages as bytes (RFC 9112); no connection, no waiting."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

import httptools

from gateway.call_error import CallError
from gateway.protocol.language import preferred

Headers = Sequence[tuple[bytes, bytes]]  # names in lower case

# Applications ask for a few addresses again and again.
_USUAL_TARGET_BYTES = 64
_MOST_TARGETS = 256
_targets: dict[bytes, tuple[str, bytes, bytes]] = {}

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


def read_target(target: bytes) -> tuple[str, bytes, bytes]:
    """Path, the same as it came, and query. Raises httptools.HttpParserInvalidURLError."""
    known = _targets.get(target)
    if known is None:
        known = _read_target(target)
        if len(target) <= _USUAL_TARGET_BYTES:
            if len(_targets) >= _MOST_TARGETS:
                _targets.clear()
            _targets[target] = known
    return known


def _read_target(target: bytes) -> tuple[str, bytes, bytes]:
    if not target.startswith(b"/"):  # the absolute form, which proxies are sent (3.2.2), or an asterisk
        url: Any = httptools.parse_url(target)  # its stubs say that no part is ever missing
        target = b"%b?%b" % (url.path or b"/", url.query or b"")
    path, _, query = target.partition(b"?")
    decoded = unquote_to_bytes(path) if b"%" in path else path
    return decoded.decode("utf-8", "replace"), path, query


def is_old_fashioned(version: str, headers: Headers) -> bool:
    """Whether it is a proper HTTP/1.0 request: those may lack a host, but may not have chunks (3.2 and 6.1)."""
    names = [name for name, _ in headers]
    return version == "1.0" and names.count(b"host") <= 1 and b"transfer-encoding" not in names


def write_head(method: bytes, target: bytes, version: str, headers: Headers, *, without: bytes) -> bytes:
    """A request's head as it came, less one header."""
    lines = [b"%b %b HTTP/%b\r\n" % (method, target, version.encode())]
    lines += [b"%b: %b\r\n" % field for field in headers if field[0] != without]
    return b"".join((*lines, b"\r\n"))


def last_answer(error: CallError, asked: Headers, date: bytes) -> bytes:
    """The whole answer to what did not become a request, with the headers that came of it; the connection ends behind it."""
    body = error.body(preferred(dict(asked).get(b"accept-language", b"").decode("latin-1")))
    head = [STATUS_LINES[error.status], date]
    head += [b"%b: %b\r\n" % field for field in error.headers()]
    head.append(b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body))
    return b"".join([*head, body])
