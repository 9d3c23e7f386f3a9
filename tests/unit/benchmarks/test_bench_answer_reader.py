"""Answers end where they end, however they are cut; and only whole streams count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gateway import answers
from benchmarks.gateway.answers import Asked
from benchmarks.gateway.load.answer import AnswerReader, is_whole_stream, unframed
from tests.vllm_stream import cut

CHUNKS = 5
STREAM = answers.STREAM_HEAD + b"".join(answers.frames(Asked(chunks=CHUNKS)))
SHORT = answers.response(answers.completion())
EMPTY_STREAM = answers.STREAM_HEAD + b"0\r\n\r\n"
points = st.lists(st.integers(0, 5000), max_size=30)


@given(st.sampled_from([STREAM, SHORT, EMPTY_STREAM, answers.response(b"")]), points)
def test_answer_ends_with_its_last_piece_and_no_earlier(answer: bytes, points: list[int]) -> None:
    reader = AnswerReader()
    pieces = cut(answer, points)
    ends = [reader.feed(piece) for piece in pieces]
    assert ends == [False] * (len(pieces) - 1) + [True]
    assert (reader.status, reader.whole()) == (200, answer)


def test_byte_by_byte() -> None:
    reader = AnswerReader()
    ends = [reader.feed(STREAM[at : at + 1]) for at in range(len(STREAM))]
    assert ends.index(True) == len(STREAM) - 1


def test_second_answer_on_a_kept_connection_is_read_anew() -> None:
    reader = AnswerReader()
    assert reader.feed(STREAM)
    reader.begin()
    assert reader.feed(SHORT)
    assert reader.whole() == SHORT


@given(points)
def test_stream_is_whole_however_the_gateway_frames_it(points: list[int]) -> None:
    framed = b"".join(b"%X;ext=1\r\n%s\r\n" % (len(piece), piece) for piece in cut(unframed(STREAM), points))
    assert is_whole_stream(answers.STREAM_HEAD + framed + b"0\r\n\r\n", CHUNKS)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (STREAM.replace(b"data: [DONE]\n\n", b": nothing....\n\n"), "no end"),
        (STREAM.replace("한국어".encode(), b"", 1).replace(b'data: {"id"', b'mist: {"id"', 1), "a chunk less"),
        (STREAM.replace(b'data: {"id"', b'data: {"error"', 1), "an error in between"),
        (STREAM.replace(b" 200 OK", b" 503 No", 1), "refused"),
        (SHORT, "no stream"),
        (STREAM[:-200], "cut off"),
    ],
)
def test_stream_that_is_not_whole_does_not_count(answer: bytes, why: str) -> None:
    assert not is_whole_stream(answer, CHUNKS), why
