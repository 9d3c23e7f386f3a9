"""Reading a journal file: its entries as rows of the ledger's table, and whatever of it is not what was written.

What is damaged is never dropped in silence: it is mended where that can be done for certain, and put aside either way, as it was
found, in a file of its own (`quarantine`).
"""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated

import msgspec

from gateway.adapters.journal_line import mend, unseal
from gateway.entry import Entry

Row = tuple[object, ...]  # an entry's fields in their order
Rest = Callable[[], None]

_READ_AT_ONCE = 64 * 1024  # bytes: some 300 entries, a millisecond
_MOST_MENDED = 200  # lines of one file: there is no point in trying every bit of a file of something else
_INT64 = msgspec.Meta(ge=-(2**63), le=2**63 - 1)  # the databases' integers


class Harm(Enum):
    TORN = "torn"  # the last line, begun and not ended: its writer stopped meanwhile, and `record` never returned for it
    MENDED = "mended"  # all that it held is in the ledger
    UNREADABLE = "unreadable"  # all of it, or what stood before a whole line
    REFUSED = "refused"  # it can be read, but the database does not take it


@dataclass(frozen=True, slots=True)
class Damage:
    """`at` is the byte of the file where the line begins, or -1 if that is not known."""

    harm: Harm
    line: bytes
    at: int = -1


@dataclass(slots=True)
class Reading:
    rows: list[Row] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)


def read(data: bytes, rest: Rest = lambda: None) -> Reading:
    """All of a journal file."""
    data = data.rstrip(b"\0")  # what was not written when the machine stopped may be zero
    reading = Reading()
    begin = 0
    while begin < len(data):
        end = data.find(b"\n", begin + _READ_AT_ONCE) + 1 or len(data)
        _read_lines(data[begin:end], begin, reading)
        begin = end
        rest()
    return reading


def quarantine(folder: Path, stem: str, damages: Sequence[Damage]) -> Path:
    """Keep the lines as they were found; twice the same file makes no second copy. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.damaged"
    with path.open("wb") as file:
        for damage in damages:
            kept = {"harm": damage.harm.value, "at": damage.at, "line": base64.b64encode(damage.line).decode()}
            file.write(msgspec.json.encode(kept) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return path


def quarantined(folder: Path) -> Iterator[tuple[Path, Harm, bytes]]:
    """What was put aside there so far."""
    for path in sorted(folder.glob("*.damaged")):
        for line in path.read_bytes().splitlines():
            kept = msgspec.json.decode(line)
            yield path, Harm(kept["harm"]), base64.b64decode(kept["line"])


def _read_lines(data: bytes, at: int, reading: Reading) -> None:
    *lines, last = data.split(b"\n")
    bodies = [unseal(line) for line in lines]
    if not last and None not in bodies:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            reading.rows += _rows.decode_lines(b"\n".join([body for body in bodies if body is not None]))
            return
    for line, body in zip(lines, bodies, strict=True):
        if body is None or not _add([body], reading):
            _take_damaged(line, at, reading, Harm.UNREADABLE)
        at += len(line) + 1
    if last:
        body = unseal(last)
        if body is None or not _add([body], reading):
            _take_damaged(last, at, reading, Harm.TORN)


def _take_damaged(line: bytes, at: int, reading: Reading, otherwise: Harm) -> None:
    damages = reading.damages
    if len(damages) >= _MOST_MENDED:
        damages.append(Damage(otherwise, line, at))
        return
    mended = _mend(line, reading)
    if not mended and damages and damages[-1].harm is Harm.UNREADABLE and damages[-1].at + len(damages[-1].line) + 1 == at:
        whole = damages[-1].line + b"\n" + line  # what is no newline may have become one
        if _mend(whole, reading):
            damages[-1] = Damage(Harm.MENDED, whole, damages[-1].at)
            return
    damages.append(Damage(Harm.MENDED if mended else otherwise, line, at))


def _mend(line: bytes, reading: Reading) -> bool:
    bodies, complete = mend(line)
    return _add(bodies, reading) and complete


def _add(bodies: Iterable[bytes], reading: Reading) -> bool:
    """Whether all of them are entries; if not, none is added. Those of other versions may be shorter or longer."""
    try:
        rows = [_rows.decode(msgspec.json.encode(_entries.decode(body))) for body in bodies]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    reading.rows += rows
    return True


def _row_decoder() -> msgspec.json.Decoder[Row]:
    """Of an entry's JSON as it is, without making an Entry of it: its fields in their order."""
    kinds = [field.type for field in msgspec.structs.fields(Entry)]
    return msgspec.json.Decoder(tuple[*(Annotated[int, _INT64] if kind is int else kind for kind in kinds)])  # type: ignore[misc]


_entries = msgspec.json.Decoder(Entry)
_rows = _row_decoder()
