"""The hot path: one raw ASGI endpoint for every call that an engine answers.

The lease on what a call took lives on the sending of the reply (`async with reply`), never in a generator's `finally`: if the
first `send` fails, a generator's body has never begun and its `finally` never runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.errors import CallError, UpstreamError
from gateway.pipeline import Call, Pipeline, Reply
from gateway.protocol import credential, openai
from gateway.protocol.asgi import REQUEST_ID, Message, Receive, Scope, Send, header, is_closing, language, send_error
from gateway.protocol.endpoint import Endpoint
from gateway.protocol.sse import error_event


class ClientGone(Exception):
    """The client closed its connection before it had sent its whole request."""


class InferenceEndpoint:
    """An ASGI app for one endpoint's calls."""

    def __init__(self, pipeline: Pipeline, endpoint: Endpoint) -> None:
        self._pipeline = pipeline
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await _read_body(receive)
        except ClientGone:
            return
        answering = asyncio.create_task(self._answer(scope, body, _cancelling(send, is_closing(scope))))
        leaving = asyncio.create_task(_cancel_when_gone(answering, receive))
        try:
            await asyncio.wait([answering])
        finally:
            leaving.cancel()
            answering.cancel()
            await asyncio.wait([answering])  # what it holds is given back before anybody believes that the call is over
        if not answering.cancelled():
            answering.result()

    async def _answer(self, scope: Scope, body: bytes, send: Send) -> None:
        try:
            # The key before the body: strangers learn nothing from what is wrong with theirs.
            key = credential.presented(header(scope, b"authorization"), header(scope, b"x-api-key"))
            principal = await self._pipeline.identify(key)
            with self._pipeline.recording_refusal(scope[REQUEST_ID], self._endpoint.path, principal):
                request = openai.read(body, self._endpoint)
            reply = await self._pipeline.run(Call(scope[REQUEST_ID], principal, request))
        except CallError as error:
            await send_error(send, scope, error)
            return
        await self._send(scope, send, reply)

    async def _send(self, scope: Scope, send: Send, reply: Reply) -> None:
        """A failure after the head is said in the stream, once, as an `error` event; there is no second status line."""
        streams = reply.content_type.startswith("text/event-stream")
        started = False
        try:
            async with reply:
                async for piece in reply.body():
                    if not started:
                        started = True
                        await send(_head(reply, None if streams else len(piece)))
                    await send({"type": "http.response.body", "body": piece, "more_body": streams})
        except UpstreamError as error:
            if not started:
                await send_error(send, scope, error)
            elif streams:
                last = error_event(error.body(language(scope)))
                await send({"type": "http.response.body", "body": last, "more_body": False})
            return
        if not started:
            await send(_head(reply, 0))
        if streams or not started:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _head(reply: Reply, length: int | None) -> dict[str, object]:
    headers = [(b"content-type", reply.content_type.encode("latin-1"))]
    if length is None:
        headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
    else:
        headers.append((b"content-length", str(length).encode()))
    return {"type": "http.response.start", "status": 200, "headers": headers}


async def _read_body(receive: Receive) -> bytes:
    pieces = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        pieces.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(pieces)


def _cancelling(send: Send, closing: Callable[[], bool]) -> Send:
    """A send to a client that is gone ends the call, as its leaving does: what did not get out must not count.

    A server may say it by an OSError (ASGI 2.4). If the connection is closing when the send is over, then it was when the
    piece was to be written, for nothing happens between the two.
    """

    async def send_or_cancel(message: Message) -> None:
        try:
            await send(message)
        except OSError as problem:
            raise asyncio.CancelledError from problem
        if closing():
            raise asyncio.CancelledError

    return send_or_cancel


async def _cancel_when_gone(answering: asyncio.Task[None], receive: Receive) -> None:
    """From here and not from a third task: every turn of the loop may pass a piece that nobody gets and somebody pays."""
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    finally:
        answering.cancel()
