"""The hot path: one raw ASGI endpoint for every call that an engine answers.

The lease on what a call took lives on the sending of the reply (`with reply`), never in a generator's `finally`: if the first
`send` fails, a generator's body has never begun and its `finally` never runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf, nan

from gateway.call import Call
from gateway.call_error import CallError
from gateway.errors import HANDED_BACK, QUEUE_POSITION, InvalidField, ServerStopping
from gateway.exchange import BodyLimits, Exchange
from gateway.pipeline import Pipeline
from gateway.protocol import credential, openai
from gateway.protocol.asgi import Receive, Scope, Send, header
from gateway.protocol.endpoint import Endpoint
from gateway.protocol.sse import waiting_comment
from gateway.reply import Reply

MAX_WAIT = b"x-daemun-max-wait-s"


class Running:
    """The calls of this process."""

    def __init__(self, stop_others: Callable[[], None]) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self._stop_others = stop_others

    def hand_back(self) -> None:
        """The process stops: every call that still runs or waits ends now, and its client is told to come again."""
        for task in self.tasks:
            task.cancel(HANDED_BACK)
        self._stop_others()


class InferenceEndpoint:
    """An ASGI app for one endpoint's calls."""

    def __init__(self, pipeline: Pipeline, endpoint: Endpoint, limits: BodyLimits, running: Running) -> None:
        self._pipeline = pipeline
        self._endpoint = endpoint
        self._limits = limits
        self._running = running.tasks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, self._limits)
        connection = exchange.connection
        task = (connection.task if connection is not None else None) or _current_task()
        self._running.add(task)
        if connection is not None:
            connection.when_lost = task.cancel
        try:
            await self._answer(exchange, task, None if connection else receive)
        except CallError as error:
            await exchange.refuse(error)
        except asyncio.CancelledError as problem:
            if HANDED_BACK in problem.args:
                task.uncancel()
                await exchange.refuse(ServerStopping())
            elif not exchange.is_lost():
                raise
        except Exception:  # noqa: BLE001 - the other of the two outermost edges
            await exchange.fail()
        finally:
            self._running.discard(task)
            if connection is not None:
                connection.when_lost = None

    async def _answer(self, exchange: Exchange, task: asyncio.Task[None], receive: Receive | None) -> None:
        """`receive` is given where only it tells that the client has left."""
        scope, pipeline = exchange.scope, self._pipeline
        # The key before the body: strangers learn nothing from what is wrong with theirs.
        principal = await pipeline.identify(credential.presented(header(scope, b"authorization"), header(scope, b"x-api-key")))
        body = await exchange.body()
        watching = asyncio.create_task(_cancel_when_gone(receive, exchange, task)) if receive is not None else None
        try:
            try:
                request = openai.read(body, self._endpoint)
                patience_s = _patience_s(header(scope, MAX_WAIT))
            except CallError as error:
                pipeline.record_refusal(exchange.request_id, self._endpoint.path, principal, error)
                raise
            call = Call(
                exchange.request_id,
                principal,
                request,
                headers=exchange.headers,
                patience_s=patience_s,
                tell=_Heartbeat(exchange).tell if request.stream else None,
            )
            with await pipeline.run(call) as reply:
                await _send(exchange, reply)
        finally:
            if watching is not None:
                watching.cancel()


async def _send(exchange: Exchange, reply: Reply) -> None:
    piece = await reply.piece()
    if not reply.streams:
        headers = (*_head(reply), (b"content-length", b"%d" % len(piece)))
        await exchange.send({"type": "http.response.start", "status": 200, "headers": headers})
        await exchange.send({"type": "http.response.body", "body": piece, "more_body": False})
        reply.delivered()
        return
    if not exchange.started:
        exchange.streams = True
        await exchange.send({"type": "http.response.start", "status": 200, "headers": (*_head(reply), *_STREAM)})
    reply.flow_into(exchange.writer())
    while piece:
        await exchange.send({"type": "http.response.body", "body": piece, "more_body": True})
        reply.delivered()
        piece = await reply.piece()
    await exchange.send({"type": "http.response.body", "body": b"", "more_body": False})


class _Heartbeat:
    """Tells a streaming client that waits where it stands. With the first word the answer has begun: it is a 200 from then on,
    and what goes wrong is an event in it. Clients that start before it get their true status.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def tell(self, position: int, expected_s: float | None) -> None:
        exchange, comment = self._exchange, waiting_comment(position, expected_s)
        if not exchange.started:
            exchange.streams = True
            exchange.headers.append((QUEUE_POSITION, b"%d" % position))
            await exchange.send({"type": "http.response.start", "status": 200, "headers": _WAITING})
        elif (write := exchange.writer()) is not None:
            write(comment)  # a client that does not read what it has got needs no more, and must not hold up its own call
            return
        await exchange.send({"type": "http.response.body", "body": comment, "more_body": True})


def _patience_s(said: str) -> float | None:
    """The header by which a client shortens its wait; more than the settings allow has no effect. Raises InvalidField."""
    if not said:
        return None
    try:
        seconds = float(said)
    except ValueError:
        seconds = nan
    if not 0 <= seconds < inf:
        raise InvalidField(param=MAX_WAIT.decode(), detail="it is the longest wait in seconds, a number from 0 up")
    return seconds


_STREAM = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
_WAITING = ((b"content-type", b"text/event-stream; charset=utf-8"), *_STREAM)


def _head(reply: Reply) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"content-type", reply.content_type.encode("latin-1")), *reply.headers)


def _current_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("an ASGI app runs in a task")
    return task


async def _cancel_when_gone(receive: Receive, exchange: Exchange, task: asyncio.Task[None]) -> None:
    """Under servers that say only by a message that the client has left, somebody has to wait for that message."""
    while (await receive())["type"] != "http.disconnect":
        pass
    exchange.client_left()
    task.cancel()
