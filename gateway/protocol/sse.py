"""Server-sent events as bytes: cutting a byte stream into whole events, and writing our own.

Only what OpenAI-compatible servers send is understood (one `data:` line an event, `\\n\\n` between events; WHATWG HTML,
9.2); other events pass through whole. Nothing is decoded here.
"""

from __future__ import annotations

from math import ceil

DATA = b"data: "
DONE = b"data: [DONE]\n\n"
ENGINE_ERROR = b'data: {"error":'  # vLLM's own last word in a stream that it cannot go on with


class EventSplitter:
    """Collects bytes as they come and hands out whole events, each with its closing blank line."""

    def __init__(self) -> None:
        self._rest = b""
        self._return = b""  # a CR that came last: the LF behind it may still come

    def feed(self, data: bytes) -> list[bytes]:
        """The events completed by `data`, in order; their concatenation is what came in, less what is still incomplete.

        Servers that end their lines with CRLF are understood too; their clients get a LF.
        """
        if self._return or b"\r" in data:  # never within JSON, which escapes it
            data = self._with_plain_ends(data)
        if self._rest:
            data = self._rest + data
            self._rest = b""
        end = data.rfind(b"\n\n")
        if end < 0:
            self._rest = data
            return []
        if end + 2 < len(data):
            self._rest = data[end + 2 :]
            data = data[: end + 2]
        if data.find(b"\n") == end:  # mostly there is one event, it is whole, and has one line; one byte is found fast
            return [data]
        return [event + b"\n\n" for event in data[:end].split(b"\n\n")]

    def rest(self) -> bytes:
        """What came after the last whole event: empty if the stream ended properly."""
        return self._rest + self._return

    def _with_plain_ends(self, data: bytes) -> bytes:
        """Each byte is looked at once: what was made of one CRLF must not be part of another."""
        data, self._return = self._return + data, b""
        if data.endswith(b"\r"):
            data, self._return = data[:-1], b"\r"
        return data.replace(b"\r\n", b"\n")


def error_event(body: bytes) -> bytes:
    """Our last word in a stream that failed in the middle: one `error` event with OpenAI's error body."""
    return b"event: error\n" + DATA + body + b"\n\n"


def waiting_comment(position: int, expected_s: float | None) -> bytes:
    """What a client hears that waits for its place: a comment, which SSE readers skip and a chat page can show.

    `: daemun position=3 expected_wait_s=12`, in whole seconds, rounded up; without the second part where nothing is known.
    """
    expected = b"" if expected_s is None else b" expected_wait_s=%d" % ceil(expected_s)
    return b": daemun position=%d%b\n\n" % (position, expected)
