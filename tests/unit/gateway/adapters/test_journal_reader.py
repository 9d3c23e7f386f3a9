"""Of a damaged journal file all that was not touched is read; what was touched is known, put aside, and mended if possible."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.journal_line import mend, seal, unseal
from gateway.adapters.journal_reader import Damage, Harm, Reading, quarantine, quarantined, read
from gateway.entry import Entry
from tests.entries import entry, rows


def line(number: int) -> bytes:
    return seal(msgspec.json.encode(entry(number)))


def names(reading: Reading) -> list[str]:
    return [str(row[0]) for row in reading.rows]


THREE = [line(number) for number in range(3)]
WHOLE = b"".join(THREE)
ALL = ["req_0", "req_1", "req_2"]


def test_what_was_written_is_read() -> None:
    reading = read(WHOLE)
    assert reading.rows == rows(map(entry, range(3)))
    assert reading.damages == []


def test_any_single_flipped_bit_loses_nothing_and_is_never_silent() -> None:
    for at in range(8 * len(WHOLE)):
        flipped = bytearray(WHOLE)
        flipped[at // 8] ^= 1 << at % 8
        reading = read(bytes(flipped))
        assert sorted(names(reading)) == ALL, at
        assert rows(entry(int(name[4:])) for name in names(reading)) == reading.rows, at
        assert reading.damages, at


def test_cut_off_anywhere_it_loses_at_most_the_line_that_was_being_written() -> None:
    for end in range(len(WHOLE)):
        ended = WHOLE[:end].count(b"\n")
        begun = sum(map(len, THREE[:ended]))
        is_whole = end - begun == len(THREE[ended]) - 1  # but for its newline
        reading = read(WHOLE[:end])
        assert names(reading) == ALL[: ended + is_whole], end
        torn = [Damage(Harm.TORN, WHOLE[begun:end], begun)] if end > begun and not is_whole else []
        assert reading.damages == torn, end


@given(st.binary(max_size=600), st.integers(0, len(WHOLE)))
def test_whatever_is_written_over_a_part_the_lines_beside_it_are_read(junk: bytes, at: int) -> None:
    data = WHOLE[:at] + junk + WHOLE[at + len(junk) :]
    before = data[:at].count(b"\n")
    whole_behind = [name for number, name in enumerate(ALL) if len(b"".join(THREE[:number])) >= at + len(junk)]
    found = names(read(data))
    assert found[:before] == ALL[:before]
    assert set(whole_behind) <= set(found)
    assert set(found) <= set(ALL)


@given(st.lists(st.integers(0, 8 * len(line(0)) - 9), min_size=2, max_size=3, unique=True))
def test_several_flipped_bits_are_never_taken_for_an_entry(flips: list[int]) -> None:
    flipped = bytearray(line(0)[:-1])
    for at in flips:
        flipped[at // 8] ^= 1 << at % 8
    assert unseal(bytes(flipped)) is None
    if b"\n" not in flipped:
        found, _ = mend(bytes(flipped))
        assert found in ([], [msgspec.json.encode(entry(0))])


def test_two_lines_whose_newline_was_lost_are_told_apart() -> None:
    reading = read(THREE[0][:-1] + b"\x0b" + WHOLE[len(THREE[0]) :])
    assert sorted(names(reading)) == ALL
    assert [damage.harm for damage in reading.damages] == [Harm.MENDED]


def test_piece_of_a_line_before_a_whole_one_is_said_to_be_lost() -> None:
    """As a full disk leaves one where it cannot even be cut off again."""
    reading = read(THREE[0] + THREE[1][:30] + THREE[2])
    assert names(reading) == ["req_0", "req_2"]
    assert [(damage.harm, damage.at) for damage in reading.damages] == [(Harm.UNREADABLE, len(THREE[0]))]


def test_lines_of_version_1_are_read_beside_others() -> None:
    old = b'["req_8",1.0,"/v1/completions","m",true,"anna"]\n' + msgspec.json.encode(entry(9)) + b"\n"
    reading = read(old + WHOLE + bytes(99))
    assert names(reading) == ["req_8", "req_9", *ALL]
    assert reading.rows[:1] == rows([Entry("req_8", 1.0, "/v1/completions", "m", True, "anna")])
    assert reading.damages == []


def test_entries_of_a_newer_version_are_read_as_far_as_they_are_known() -> None:
    newer = seal(msgspec.json.encode([*msgspec.structs.astuple(entry(0)), "something", 7]))
    assert read(newer).rows == rows([entry(0)])


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\xff\xfe",
        b'["\xff\xfe",1.0,"/","m",true]',
        b"[]",
        b"{}",
        b'["req_9","1.0","/","m",true]',
        b'["req_9",1.0,"/","m",true,"","","","",0,"",null,%d]' % 2**63,
        b"\0\0\0",
        seal(b'["req_9"]').strip(),
    ],
)
def test_line_that_is_no_entry_is_put_aside(bad: bytes) -> None:
    reading = read(THREE[0] + bad + b"\n" + THREE[1])
    assert names(reading) == ["req_0", "req_1"]
    assert reading.damages == [Damage(Harm.UNREADABLE, bad, len(THREE[0]))]


def test_model_named_like_a_line_is_not_taken_for_one() -> None:
    """Its client chose that name; a bit flipped elsewhere in the line makes the reader look for lines inside of it."""
    named = entry(1, model=seal(b'["req_forged",1.0,"/","m",true]').decode().strip())
    forged = bytearray(seal(msgspec.json.encode(named)))
    forged[3] ^= 1
    assert names(read(bytes(forged))) == ["req_1"]


def test_large_file_is_read_in_parts_and_whole() -> None:
    lines = [line(number) for number in range(3000)]
    lines[1500] = b"not an entry\n"
    rested: list[int] = []
    reading = read(b"".join(lines), lambda: rested.append(1))
    assert names(reading) == [f"req_{number}" for number in range(3000) if number != 1500]
    assert reading.damages == [Damage(Harm.UNREADABLE, b"not an entry", sum(map(len, lines[:1500])))]
    assert len(rested) > 3


def test_quarantine_keeps_lines_as_they_were_found(tmp_path: Path) -> None:
    damages = [Damage(Harm.TORN, b"\0\xff\n", 7), Damage(Harm.MENDED, "대문".encode(), 99)]
    for _ in range(2):
        path = quarantine(tmp_path / "damaged", "77-dead-1", damages)
    assert list(quarantined(tmp_path / "damaged")) == [(path, damage.harm, damage.line) for damage in damages]
    assert list(quarantined(tmp_path / "nowhere")) == []
