"""Reads HTTP answers cheaply: where one ends, and whether a stream is whole. Bytes in, verdicts out; no sockets.

Not a parser for any server: it knows the two framings that gateways use (a length, chunks) and is wrong about a chunk whose
content ends like the end of a chunked body, which no event does.
"""

from __future__ import annotations

import re

_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)
_END = b"\r\n0\r\n\r\n"
_EVENT = b"data: {"
_ERROR = b'data: {"error"'
_DONE = b"data: [DONE]\n\n"


class AnswerReader:
    """Fed with what comes; says when the answer has ended. `begin` before each answer."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self._pieces: list[bytes] = []
        self._chunked = False
        self._missing: int | None = None
        self.status = 0

    def feed(self, data: bytes) -> bool:
        """Whether the answer ends with this piece."""
        self._pieces.append(data)
        if self._chunked:
            return self._ends_here(data)
        if self._missing is None:
            return self._read_head()
        self._missing -= len(data)
        return self._missing <= 0

    def whole(self) -> bytes:
        """Head and body as they came, framing included."""
        return b"".join(self._pieces)

    def _ends_here(self, data: bytes) -> bool:
        if len(data) >= len(_END):
            return data.endswith(_END)
        return b"".join(self._pieces[-len(_END) :]).endswith(_END)

    def _read_head(self) -> bool:
        come = self.whole()
        end = come.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = come[:end]
        self.status = int(head[9:12])
        self._chunked = _CHUNKED.search(head) is not None
        if self._chunked:
            return come.endswith(_END)
        length = _LENGTH.search(head)
        if length is None:  # it would end with the connection, which counts as broken
            return False
        self._missing = end + 4 + int(length[1]) - len(come)
        return self._missing <= 0


def is_whole_stream(answer: bytes, chunks: int) -> bool:
    """Whether an answer is a stream of exactly so many chunks that ends in order, without an error in between."""
    if not answer.startswith(b"HTTP/1.1 200"):
        return False
    return _is_whole(answer, chunks) or _is_whole(unframed(answer), chunks)


def unframed(answer: bytes) -> bytes:
    """The body of a chunked answer: a gateway may cut chunks where it likes, in the middle of an event too."""
    at = answer.find(b"\r\n\r\n") + 4
    body: list[bytes] = []
    while True:
        line_end = answer.find(b"\r\n", at)
        try:
            size = int(answer[at:line_end].partition(b";")[0], 16)
        except ValueError:
            return b""
        if size == 0:
            return b"".join(body)
        begin = line_end + 2
        body.append(answer[begin : begin + size])
        at = begin + size + 2


def _is_whole(text: bytes, chunks: int) -> bool:
    return text.count(_EVENT) == chunks and text.rfind(_DONE) > text.rfind(_EVENT) and _ERROR not in text
