"""A client's bytes, whatever they are: it is over in time, answered with whole answers, and nothing is said in the log."""

from __future__ import annotations

import asyncio
import logging

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.effort import fuzz, in_virtual_time
from tests.unit.gateway.client_connection.malformed import MALFORMED
from tests.unit.gateway.client_connection.wire import Echo, Wire, request
from tests.vllm_stream import cut

PARTS = [
    request(),
    request("POST", "/", b"hello"),
    request("POST", "/", chunks=[b"he", b"llo"]),
    request("POST", "/", b"x" * 70_000),
    request("HEAD"),
    request("POST", "/", b"hello", "expect: 100-continue"),
    request("POST", "/", b"hello", "connection: close"),
    request("GET", "/", b"", "connection: upgrade", "upgrade: websocket"),
    b"\r\n",
    b"0\r\n\r\n",
    b" ",
    b"\x00",
    b"a: b\r\n",
    b"x" * 3000,
    *MALFORMED.values(),
]


_DEADLINES_S = 300


class _Said(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


async def _send(data: bytes, points: list[int], *, reads: bool, waits: bool) -> None:
    wire = Wire(Echo())
    if not reads:
        wire.transport.client_stops_reading()
    for each in cut(data, points):
        wire.feed(each)
        if waits:
            await wire.settle()
    await asyncio.sleep(_DEADLINES_S)
    assert wire.is_quiet
    assert not wire.connections.open
    if b"HEAD" not in data:  # whose answers look cut to a reader that does not know the question
        assert all(found.whole for found in wire.answers)


@fuzz(percent=10)
@given(
    parts=st.lists(st.sampled_from(PARTS) | st.binary(max_size=30), max_size=6),
    dropped=st.lists(st.integers(0, 100_000), max_size=3),
    points=st.lists(st.integers(0, 100_000), max_size=6),
    reads=st.booleans(),
    waits=st.booleans(),
)
def test_client_bytes(parts: list[bytes], dropped: list[int], points: list[int], reads: bool, waits: bool) -> None:
    data = b"".join(parts)
    for at in dropped:
        at %= len(data) + 1
        data = data[:at] + data[at + 1 :]
    said = _Said()
    logging.getLogger().addHandler(said)
    try:
        in_virtual_time(_send(data, points, reads=reads, waits=waits))
    finally:
        logging.getLogger().removeHandler(said)
    assert said.records == []
