"""Replicas' answers byte by byte: whatever comes is an answer or an UpstreamError, and never a byte of somebody else's."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamError, UpstreamTimeout
from tests.fuzz.effort import fuzz, in_virtual_time
from tests.fuzz.json_text import mutated
from tests.strategies import cuts
from tests.unit.gateway.adapters.test_http_connection import Wire
from tests.vllm_stream import cut

TIMEOUT_S = 5.0
End = Literal["silent", "closed", "reset"]
ends: st.SearchStrategy[End] = st.sampled_from(["silent", "closed", "reset"])


@dataclass(frozen=True)
class Said:
    """An answer as a replica means it, and how it goes over the wire."""

    status: int
    body: bytes
    wire: bytes
    kept: bool
    ends_with_connection: bool = False


_EARLY = st.lists(
    st.sampled_from([b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n"]),
    max_size=2,
).map(b"".join)
_FIELDS = st.lists(
    st.sampled_from(
        [b"Content-Type: text/event-stream", b"content-type:application/json", b"Server:  x ", b"X-Empty:", b"x-a: \xff"]
    ),
    max_size=4,
).map(lambda fields: b"".join(field + b"\r\n" for field in fields))
_STATUSES = st.sampled_from([200, 200, 200, 400, 404, 429, 500, 503])
_EXTENSIONS = st.sampled_from([b"", b"", b";note=x", b';a="b"'])
_TRAILERS = st.sampled_from([b"", b"", b"x-trailer: 1\r\n"])


@st.composite
def answers(draw: st.DrawFn) -> Said:
    status, body, closes = draw(_STATUSES), draw(st.binary(max_size=60)), draw(st.booleans())
    framing = draw(st.sampled_from(["length", "chunked", "end"]))
    head = draw(_EARLY) + b"HTTP/1.1 %d OK\r\n" % status + draw(_FIELDS)
    if closes:
        head += b"Connection: close\r\n"
    if framing == "length":
        wire = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    elif framing == "chunked":
        chunks = [b"%x%b\r\n%b\r\n" % (len(piece), draw(_EXTENSIONS), piece) for piece in cut(body, draw(cuts)) if piece]
        wire = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunks) + b"0\r\n" + draw(_TRAILERS) + b"\r\n"
    else:
        return Said(status, body, head + b"\r\n" + body, kept=False, ends_with_connection=True)
    return Said(status, body, wire, kept=not closes)


@fuzz(percent=5)
@given(answers(), cuts, answers(), cuts)
def test_answer_is_whole_at_any_cut_and_the_next_one_too(first: Said, points: list[int], second: Said, more: list[int]) -> None:
    async def both() -> None:
        wire = Wire()
        assert await fetched(wire, cut(first.wire, points), "closed" if first.ends_with_connection else "silent") == told(first)
        assert wire.connection.reusable == first.kept
        if first.kept:
            assert await fetched(wire, cut(second.wire, more), "closed") == told(second)

    in_virtual_time(both())


@fuzz(percent=4)
@given(answers(), cuts, st.integers(0, 300), ends)
def test_answer_that_stops_early_is_an_error_unless_its_end_is_the_connections(
    said: Said, points: list[int], missing: int, end: End
) -> None:
    async def run() -> None:
        sent = said.wire[: max(0, len(said.wire) - 1 - missing)]
        got = await fetched(wire := Wire(), cut(sent, points), end)
        if end == "silent":
            assert isinstance(got, UpstreamTimeout)
        elif said.ends_with_connection and end == "closed" and said.wire.index(b" OK\r\n") < sent.rfind(b"\r\n\r\n"):
            assert isinstance(got, tuple)
            assert said.body.startswith(got[1])
        else:
            assert isinstance(got, UpstreamError)
        assert not wire.connection.reusable

    in_virtual_time(run())


@fuzz(percent=6)
@given(answers().flatmap(lambda said: mutated(said.wire)), cuts, answers(), ends)
def test_no_bytes_make_it_hang_or_reach_the_next_exchange(data: bytes, points: list[int], second: Said, end: End) -> None:
    async def run() -> None:
        wire = Wire()
        got = await fetched(wire, cut(data, points), end)
        assert isinstance(got, UpstreamError) or len(got[1]) <= len(data)
        if wire.connection.reusable:
            assert await fetched(wire, [second.wire], "closed") == told(second)

    in_virtual_time(run())


@fuzz(percent=3)
@given(answers().filter(lambda said: said.kept), answers(), st.integers(0, 200), cuts)
def test_bytes_behind_an_answer_belong_to_nobody(first: Said, second: Said, surplus: int, points: list[int]) -> None:
    """An answer that nobody asked for, or the beginning of one, must not be taken for that to the next request."""

    async def run() -> None:
        wire = Wire()
        behind = second.wire[: surplus + 1]
        assert await fetched(wire, cut(first.wire + behind, points), "silent") == told(first)
        assert not wire.connection.reusable

    in_virtual_time(run())


def told(said: Said) -> tuple[int, bytes]:
    return said.status, said.body


async def fetched(wire: Wire, pieces: list[bytes], end: End) -> tuple[int, bytes] | UpstreamError:
    """One exchange: the status and the body, or what is wrong with them."""
    reading = asyncio.create_task(_read(wire))
    await asyncio.sleep(0)
    for piece in pieces:
        if not wire.transport.aborted:
            wire.connection.data_received(piece)
        await asyncio.sleep(0)
    if end != "silent" and not wire.transport.aborted:
        wire.transport.aborted = True
        wire.connection.connection_lost(ConnectionResetError() if end == "reset" else None)
    return await reading


async def _read(wire: Wire) -> tuple[int, bytes] | UpstreamError:
    body = b""
    try:
        await wire.connection.exchange(b"GET", TIMEOUT_S)
        while piece := await wire.connection.piece(TIMEOUT_S):
            body += piece
    except UpstreamError as error:
        return error
    return wire.connection.status, body
