"""One request and its answer as our ASGI endpoints see them: the request's id, the limit on its body, whether an answer began.

The raw inference endpoint uses it directly; `gateway.middleware.edge` puts it around everything else.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from gateway.call_error import CallError
from gateway.errors import InternalError, RequestTooLarge
from gateway.protocol.asgi import REQUEST_ID, Message, Receive, Scope, Send, client_connection, header, language, send_error
from gateway.protocol.sse import error_event

log = logging.getLogger(__name__)

# Unique within one process by the first half, over all by the second; eight times cheaper than a UUID. Lists show the first half.
_PROCESS = secrets.token_hex(8)
_numbers = itertools.count(16**8)  # less the first of their nine digits they always have eight

# How a message names a part that is not text, in the APIs of OpenAI and Anthropic.
_MEDIA = (b'"image_url"', b'"input_image"', b'"image"', b'"input_audio"', b'"audio_url"', b'"video_url"')


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Bytes that a request body may have: `text` as a rule, `media` where it carries images, sound or video."""

    text: int
    media: int


class Exchange:
    """Whoever sends events sets `streams`, so that an error in their middle can be said as one.

    `headers` are in the head of whatever the answer becomes; who learns something for the client adds to them. `connection` is
    the client's, where the server shows it; where it does not, it is never known to be closing.
    """

    __slots__ = (
        "_came",
        "_has_media",
        "_limits",
        "_lost",
        "_receive",
        "_send",
        "connection",
        "headers",
        "request_id",
        "scope",
        "started",
        "streams",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, limits: BodyLimits) -> None:
        self.scope = scope
        self.request_id = scope[REQUEST_ID] = "req_" + hex(next(_numbers))[3:] + _PROCESS
        self.connection = client_connection(scope)
        self.headers: list[tuple[bytes, bytes]] = []
        self.started = False
        self.streams = False
        self._receive = receive
        self._send = send
        self._limits = limits
        self._came = 0
        self._has_media = False
        self._lost = False

    async def receive(self) -> Message:
        """The next ASGI message, for apps that read a body of text themselves. Raises RequestTooLarge."""
        self._check_announced()
        message = await self._receive()
        self._came += len(message.get("body", b""))
        if self._came > self._limits.text:
            raise RequestTooLarge(limit_bytes=self._limits.text)
        return message

    async def body(self) -> bytes:
        """The whole request body. Raises RequestTooLarge, or CancelledError if the client leaves before all of it has come."""
        self._check_announced()
        pieces: list[bytes] = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._lost = True
                raise asyncio.CancelledError
            piece: bytes = message.get("body", b"")
            self._came += len(piece)
            if self._came > self._limits.text:
                self._check_media([*pieces, piece])
            if not message.get("more_body"):
                return b"".join([*pieces, piece]) if pieces else piece
            pieces.append(piece)

    async def send(self, message: Message) -> None:
        """Raises CancelledError if the client is gone: what did not get out must not count.

        A server may say so by an OSError (ASGI 2.4). If the connection is closing when the send is over, then it was when the
        piece was to be written, for nothing happens between the two.
        """
        if message["type"] == "http.response.start":
            self.started = True
            own = (b"x-request-id", self.request_id.encode())
            message["headers"] = (*message.get("headers", ()), *self.headers, own)
        try:
            await self._send(message)
        except OSError as problem:
            self._lost = True
            raise asyncio.CancelledError from problem
        if self._is_closing():
            raise asyncio.CancelledError

    def writer(self) -> Callable[[bytes], bool] | None:
        """Where the server has one: what writes pieces of a body that has begun without waiting, as `ClientConnection.writer`."""
        return None if self.connection is None or self._lost else self.connection.writer()

    async def refuse(self, error: CallError) -> None:
        """Say what went wrong in the way that is still open: an answer of its own, or one `error` event that ends the stream.

        In the middle of any other answer nothing is sent: a body without its end makes the server cut the connection. A client
        that leaves meanwhile misses it, and that is all.
        """
        try:
            if not self.started:
                await send_error(self.send, self.scope, error)
            elif self.streams:
                event = error_event(error.body(language(self.scope)))
                await self.send({"type": "http.response.body", "body": event, "more_body": False})
        except asyncio.CancelledError:
            if not self.is_lost():
                raise

    async def fail(self) -> None:
        """Inside an `except`: what nobody foresaw becomes one answer and one traceback in the log."""
        log.exception("%s %s failed", self.request_id, self.scope["path"])
        await self.refuse(InternalError(request_id=self.request_id))

    def client_left(self) -> None:
        """Said by whoever waits for that message."""
        self._lost = True

    def is_lost(self) -> bool:
        """Whether the client is known to have left."""
        return self._lost or self._is_closing()

    def _is_closing(self) -> bool:
        return self.connection is not None and self.connection.is_closing()

    def _check_announced(self) -> None:
        announced = header(self.scope, b"content-length")
        if announced.isdigit() and int(announced) > self._limits.media:
            raise RequestTooLarge(limit_bytes=self._limits.media)

    def _check_media(self, pieces: list[bytes]) -> None:
        """Over the limit for text: is there something in it that may be larger?"""
        if not self._has_media:
            begin = b"".join(pieces)
            self._has_media = any(part in begin for part in _MEDIA)
        limit = self._limits.media if self._has_media else self._limits.text
        if self._came > limit:
            raise RequestTooLarge(limit_bytes=limit)
