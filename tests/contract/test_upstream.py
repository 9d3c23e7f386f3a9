"""What every Upstream does: the one over sockets, and the fake that the unit tests believe."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from gateway.adapters.http_upstream import HttpUpstream, Timeouts
from gateway.errors import UpstreamTimeout, UpstreamUnreachable
from gateway.ports import Answer, Replica, Upstream
from tests.fakes import FakeUpstream, Script
from tests.loopback import loopback

PATH = "/v1/chat/completions"
SILENCE_S = 0.3
Acting = Callable[[Script], AbstractAsyncContextManager[tuple[Upstream, Replica]]]


@asynccontextmanager
async def over_sockets(script: Script) -> AsyncIterator[tuple[Upstream, Replica]]:
    async with loopback(lambda _: script) as server, HttpUpstream(Timeouts(1.0, SILENCE_S, SILENCE_S)) as upstream:
        url = f"http://127.0.0.1:{unused_port()}" if script.head == "refused" else server.url
        yield upstream, Replica("r", "m", url)


@asynccontextmanager
async def in_memory(script: Script) -> AsyncIterator[tuple[Upstream, Replica]]:
    yield FakeUpstream(script, first_byte_s=SILENCE_S, between_chunks_s=SILENCE_S), Replica("r", "m", "http://r")


@pytest.fixture(params=[over_sockets, in_memory], ids=["sockets", "fake"])
def acting(request: pytest.FixtureRequest) -> Acting:
    made: Acting = request.param
    return made


def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


async def pieces_of(answer: Answer) -> AsyncIterator[bytes]:
    while piece := await answer.piece():
        yield piece


async def read(answer: Answer) -> bytes:
    return b"".join([piece async for piece in pieces_of(answer)])


async def test_answer_has_its_head_and_its_body(acting: Acting) -> None:
    script = Script(pieces=("안녕".encode(), b"!"), status=201, content_type="text/plain; charset=utf-8")
    async with acting(script) as (upstream, replica), await upstream.open(replica, PATH, b"{}", "req_1") as answer:
        assert (answer.status, answer.content_type) == (201, "text/plain; charset=utf-8")
        assert await read(answer) == "안녕!".encode()


async def test_pieces_come_as_they_are_sent(acting: Acting) -> None:
    """The first is there although the last never comes."""
    script = Script(pieces=(b"data: 1\n\n",), end="hangs")
    async with acting(script) as (upstream, replica), await upstream.open(replica, PATH, b"{}", "req_1") as answer:
        assert await answer.piece() == b"data: 1\n\n"


async def test_what_is_declined_is_handed_out_and_nothing_is_lost_or_doubled(acting: Acting) -> None:
    words = tuple(f"data: {number}\n\n".encode() for number in range(40))
    got: list[bytes] = []

    def take(data: bytes) -> bool:
        if len(got) % 3 == 2:
            return False
        got.append(data)
        return True

    async with (
        acting(Script(pieces=words)) as (upstream, replica),
        await upstream.open(replica, PATH, b"{}", "req_1") as answer,
    ):
        while piece := await answer.piece(take):
            got.append(piece)
    assert b"".join(got) == b"".join(words)


@pytest.mark.parametrize("status", [302, 400, 404, 500, 503])
async def test_other_statuses_are_answers_too(acting: Acting, status: int) -> None:
    script = Script(pieces=(b"why",), status=status)
    async with acting(script) as (upstream, replica), await upstream.open(replica, PATH, b"{}", "req_1") as answer:
        assert answer.status == status
        assert await read(answer) == b"why"


@pytest.mark.parametrize("head", ["refused", "reset"])
async def test_replica_that_hangs_up_is_unreachable(acting: Acting, head: str) -> None:
    script = Script(head="refused" if head == "refused" else "reset")
    async with acting(script) as (upstream, replica):
        with pytest.raises(UpstreamUnreachable):
            await upstream.open(replica, PATH, b"{}", "req_1")


async def test_silence_before_the_head_is_a_timeout(acting: Acting) -> None:
    async with acting(Script(head="hangs")) as (upstream, replica):
        with pytest.raises(UpstreamTimeout) as caught:
            await upstream.open(replica, PATH, b"{}", "req_1")
        assert caught.value.fields["timeout_s"] == SILENCE_S


@pytest.mark.parametrize(("end", "error"), [("reset", UpstreamUnreachable), ("hangs", UpstreamTimeout)])
@pytest.mark.parametrize("pieces", [(), (b"data: 1\n\n", b"data: 2\n\n")])
async def test_answer_that_breaks_off_gives_what_came_and_says_how(
    acting: Acting, end: str, error: type[Exception], pieces: tuple[bytes, ...]
) -> None:
    script = Script(pieces=pieces, end="reset" if end == "reset" else "hangs")
    came = b""
    async with acting(script) as (upstream, replica), await upstream.open(replica, PATH, b"{}", "req_1") as answer:
        with pytest.raises(error):  # noqa: PT012 (what came before the error matters too)
            async for piece in pieces_of(answer):
                came += piece
    assert came == b"".join(pieces)


async def test_call_can_be_cancelled_while_it_waits(acting: Acting) -> None:
    async with acting(Script(head="hangs")) as (upstream, replica):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await upstream.open(replica, PATH, b"{}", "req_1")
