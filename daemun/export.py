"""Records of the ledger as CSV, JSON and Parquet. Money is exact in all three, and times are Asia/Seoul's."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from daemun.ledger import in_seoul, krw
from daemun.problem import Problem
from gateway.entry import Entry
from gateway.ledger_query import Group, UsageSum

if TYPE_CHECKING:
    import pyarrow as pa

Value = str | int | float | bool | Decimal | datetime | None
Record = dict[str, Value]

_SUMMED = ("calls", "completed", "aborted", "rejected", "failed")
_TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")


def of_entry(entry: Entry) -> Record:
    record: Record = {name: getattr(entry, name) for name in Entry.__struct_fields__}
    record["started_at"] = in_seoul(entry.started_at)
    record["cost_krw"] = krw(entry.cost_ukrw)
    record["energy_wh_estimate"] = record.pop("energy_wh")
    del record["cost_ukrw"]
    return record


def of_sum(one: UsageSum, groups: Sequence[Group]) -> Record:
    record: Record = {group.value: value for group, value in zip(groups, one.group, strict=True)}
    record |= {name: getattr(one, name) for name in (*_SUMMED, *_TOKENS)}
    return record | {
        "cost_krw": krw(one.cost_ukrw),
        "energy_wh_estimate": one.energy_wh,
        "estimated_calls": one.estimated,
    }


def write_csv(records: Sequence[Record], file: TextIO) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(records[0] if records else [])
    writer.writerows([_text(value) for value in record.values()] for record in records)


def write_json(records: Sequence[Record], file: TextIO) -> None:
    json.dump([{name: _plain(value) for name, value in record.items()} for record in records], file, ensure_ascii=False, indent=2)
    file.write("\n")


def write_parquet(records: Sequence[Record], path: Path) -> None:
    """Raises Problem."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as problem:
        raise Problem("Parquet needs pyarrow: install daemun[parquet], or use --format csv.") from problem
    names = list(records[0]) if records else []
    columns = {name: pa.array([record[name] for record in records], _kind(name, records)) for name in names}
    try:
        pq.write_table(pa.table(columns), path)
    except OSError as problem:
        raise Problem(f"{path} cannot be written ({problem}).") from problem


def _kind(name: str, records: Sequence[Record]) -> pa.DataType:
    """Of a column: the same, whatever values happen to be in it."""
    import pyarrow as pa

    if name == "cost_krw":
        return pa.decimal128(24, 6)
    if name == "started_at":
        return pa.timestamp("us", tz="Asia/Seoul")
    if name.endswith(("_s", "_estimate")):
        return pa.float64()
    if name in ("stream", "estimated"):
        return pa.bool_()
    return pa.int64() if any(isinstance(record[name], int) for record in records) else pa.string()


def _text(value: Value) -> str:
    if value is None:
        return ""
    return f"{value:f}" if isinstance(value, Decimal) else str(_plain(value))


def _plain(value: Value) -> str | int | float | bool | None:
    """Money as text, which no reader rounds."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    return value.isoformat(timespec="milliseconds") if isinstance(value, datetime) else value
