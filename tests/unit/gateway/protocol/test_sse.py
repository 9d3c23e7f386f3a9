"""Events come out whole, however the network cut them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.sse import EventSplitter, error_event, waiting_comment
from tests.strategies import cuts
from tests.vllm_stream import cut

_events = st.lists(st.binary(min_size=1, max_size=30).map(lambda data: data.translate(None, b"\r\n") or b"x"), max_size=8)


@given(_events, st.binary(max_size=5), cuts)
def test_events_are_the_same_at_any_cut(events: list[bytes], rest: bytes, points: list[int]) -> None:
    rest = rest.translate(None, b"\r\n")
    splitter = EventSplitter()
    data = b"".join(event + b"\n\n" for event in events) + rest
    out = [event for piece in cut(data, points) for event in splitter.feed(piece)]
    assert out == [event + b"\n\n" for event in events]
    assert splitter.rest() == rest


@given(st.lists(st.sampled_from([b"\n", b"a", b"\n\n", b"data: 1\n\n"]), max_size=12))
def test_no_byte_is_lost_or_made_up(pieces: list[bytes]) -> None:
    splitter = EventSplitter()
    out = b"".join(event for piece in pieces for event in splitter.feed(piece))
    assert out + splitter.rest() == b"".join(pieces)


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a"]), max_size=12), cuts)
def test_line_ends_are_looked_at_once_wherever_they_are_cut(pieces: list[bytes], points: list[int]) -> None:
    splitter, data = EventSplitter(), b"".join(pieces)
    out = b"".join(event for piece in cut(data, points) for event in splitter.feed(piece))
    assert out + splitter.rest() == data.replace(b"\r\n", b"\n")


def test_error_event_is_one_event() -> None:
    assert error_event(b'{"error":{}}') == b'event: error\ndata: {"error":{}}\n\n'


@given(st.lists(st.integers(0, 60), max_size=6))
def test_lines_may_end_as_in_http(points: list[int]) -> None:
    """As servers built on sse-starlette do."""
    splitter = EventSplitter()
    data = b'data: {"a":1}\r\n\r\n: ping\r\n\r\ndata: [DONE]\r\n\r\n'
    events = [event for piece in cut(data, points) for event in splitter.feed(piece)]
    assert events == [b'data: {"a":1}\n\n', b": ping\n\n", b"data: [DONE]\n\n"]
    assert splitter.rest() == b""


def test_word_to_who_waits_is_a_comment_in_whole_seconds_rounded_up() -> None:
    assert waiting_comment(3, 11.2) == b": daemun position=3 expected_wait_s=12\n\n"
    assert waiting_comment(1, 0.0) == b": daemun position=1 expected_wait_s=0\n\n"
    assert waiting_comment(2, None) == b": daemun position=2\n\n"
