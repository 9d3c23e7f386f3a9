"""Traces of real services: CSV as Azure's LLM inference traces and BurstGPT have it, told apart by their first line.

All of a file is read and checked before anything is used of it. What is wrong is told with the file, the line and what to do.
Formats: https://github.com/Azure/AzurePublicDataset (2023 and 2024) and https://github.com/HPMLL/BurstGPT (v1.1 and v2.0).
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol


class _Lines(Protocol):
    """What `csv.reader` returns."""

    @property
    def line_num(self) -> int: ...
    def __iter__(self) -> Iterator[list[str]]: ...
    def __next__(self) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class TracedCall:
    """`at`: seconds since the trace's first call. `model`: as the trace names it, where it does."""

    at: float
    prompt_tokens: int
    output_tokens: int
    model: str = ""


class UnreadableTrace(ValueError):
    """The file is not a trace that can be replayed; the message names file, line and remedy."""


@dataclass(frozen=True, slots=True)
class _Format:
    name: str
    time: str
    prompt: str
    output: str
    model: str
    clock: Callable[[str], float]
    failed: str  # what to do about a call without tokens

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(name for name in (self.time, self.model, self.prompt, self.output) if name)


def _moment(text: str) -> float:
    """ISO 8601 with any number of decimals; without a zone it is taken as it stands."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


_AZURE = _Format("Azure", "TIMESTAMP", "ContextTokens", "GeneratedTokens", "", _moment, "leave the line out")
_BURST_GPT = _Format(
    "BurstGPT",
    "Timestamp",
    "Request tokens",
    "Response tokens",
    "Model",
    float,
    "such a call failed: take BurstGPT's file without_fails, or leave the line out",
)
_FORMATS = (_AZURE, _BURST_GPT)
_WHOLE = re.compile(r"[0-9]{1,9}")


def read_trace(path: Path) -> tuple[TracedCall, ...]:
    """In the order of time, at least one call. Raises UnreadableTrace."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            calls = tuple(_calls(path, csv.reader(file, strict=True)))
    except OSError as error:
        raise UnreadableTrace(f"{path} cannot be read: {error.strerror}; name a CSV file that is there.") from error
    except UnicodeDecodeError as error:
        raise UnreadableTrace(f"{path} is not text in UTF-8; save it as CSV in UTF-8.") from error
    if not calls:
        raise UnreadableTrace(f"{path} holds no call, only a header; take a trace with at least one line of figures.")
    return calls


def _calls(path: Path, lines: _Lines) -> Iterator[TracedCall]:
    try:
        format_, places = _recognised(path, next(lines, []))
        first, before, hole = math.nan, -math.inf, 0
        for cells in lines:
            if not cells:  # a line of nothing, which is well only at the end
                hole = hole or lines.line_num
                continue
            if hole:
                raise _problem(path, hole, "is empty", "leave it out")
            call = _call(path, lines.line_num, cells, format_, places)
            if call.at < before:
                back = f"{before - call.at:g} s before the line above it"
                raise _problem(path, lines.line_num, f"is {back}", f"sort the trace by {format_.time}")
            before = call.at
            first = call.at if first != first else first
            yield TracedCall(call.at - first, call.prompt_tokens, call.output_tokens, call.model)
    except csv.Error as error:
        raise _problem(path, lines.line_num, f"is not CSV ({error})", "mend or leave out that line") from error


def _recognised(path: Path, header: list[str]) -> tuple[_Format, Mapping[str, int]]:
    places = {name.strip(): index for index, name in enumerate(header)}
    for format_ in _FORMATS:
        if all(name in places for name in format_.columns):
            return format_, places
    known = " or ".join(f"{', '.join(format_.columns)} ({format_.name})" for format_ in _FORMATS)
    shown = ", ".join(header)[:120] or "nothing"
    raise UnreadableTrace(f"{path}, line 1: the header is {shown}; it must have the columns {known}.")


def _call(path: Path, line: int, cells: list[str], format_: _Format, places: Mapping[str, int]) -> TracedCall:
    def cell(name: str) -> str:
        text = cells[places[name]].strip() if places[name] < len(cells) else ""
        if not text:
            raise _problem(path, line, f"has no {name}", "fill it in or leave the line out")
        return text

    return TracedCall(
        at=_time(path, line, cell(format_.time), format_),
        prompt_tokens=_tokens(path, line, format_.prompt, cell(format_.prompt), format_),
        output_tokens=_tokens(path, line, format_.output, cell(format_.output), format_),
        model=cell(format_.model) if format_.model else "",
    )


def _time(path: Path, line: int, text: str, format_: _Format) -> float:
    try:
        at = format_.clock(text)
    except (ValueError, OverflowError) as error:
        raise _problem(
            path, line, f"{format_.time} is {text[:40]!r}, which is no time", "mend it or leave the line out"
        ) from error
    if not math.isfinite(at):
        raise _problem(path, line, f"{format_.time} is {text[:40]!r}, which is no time", "mend it or leave the line out")
    return at


def _tokens(path: Path, line: int, name: str, text: str, format_: _Format) -> int:
    if not _WHOLE.fullmatch(text):
        raise _problem(path, line, f"{name} is {text[:40]!r}, not a number of tokens", "mend it or leave the line out")
    tokens = int(text)
    if tokens == 0:
        raise _problem(path, line, f"{name} is 0", format_.failed)
    return tokens


def _problem(path: Path, line: int, what: str, remedy: str) -> UnreadableTrace:
    return UnreadableTrace(f"{path}, line {line}: {what}; {remedy}.")
