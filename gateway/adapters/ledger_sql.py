"""The ledger's questions in SQL, once for SQLite and PostgreSQL: they differ in how a value's place and a day are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from gateway.entry import Entry
from gateway.ledger_query import Group, LedgerQuery, UsageSum, day_of

COLUMNS = Entry.__struct_fields__
NAMES = ", ".join(COLUMNS)
_SEOUL_S = 9 * 3600
_OUTCOMES = ("completed", "aborted", "rejected", "failed")
_SUMMED = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens", "cost_ukrw")
_FIELDS = ("tenant", "project", "key_id", "model", "tier", "outcome", "asked")
_GROUPS = {Group.KEY: "key_id", Group.REPLICA: "coalesce(replica, '')"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """`place` writes the place of a statement's nth value, `day` the number of a column's day from seconds."""

    place: Callable[[int], str]
    day: Callable[[str], str]


SQLITE = Dialect(lambda number: f"?{number}", lambda seconds: f"CAST({seconds} AS INTEGER) / 86400")
POSTGRES = Dialect(lambda number: f"${number}", lambda seconds: f"CAST(floor(({seconds}) / 86400) AS bigint)")
Statement = tuple[str, list[object]]  # and its values


def sums(dialect: Dialect, query: LedgerQuery, groups: Sequence[Group]) -> Statement:
    where, values = _where(dialect, query)
    by = [_expression(dialect, group) for group in groups]
    wanted = [
        *by,
        "count(*)",
        *(f"coalesce(sum(CASE WHEN outcome = '{outcome}' THEN 1 ELSE 0 END), 0)" for outcome in _OUTCOMES),
        *(f"coalesce(sum({name}), 0)" for name in _SUMMED),
        "coalesce(sum(CASE WHEN estimated THEN 1 ELSE 0 END), 0)",
        "coalesce(sum(energy_wh), 0)",
    ]
    places = ", ".join(str(number + 1) for number in range(len(by)))
    tail = f" GROUP BY {places} ORDER BY {places}" if by else ""
    return f"SELECT {', '.join(wanted)} FROM ledger WHERE {where}{tail}", values  # noqa: S608 (names of our own)


def to_sum(row: Sequence[object], groups: Sequence[Group]) -> UsageSum:
    """PostgreSQL gives sums of whole numbers as decimals, 200,000 as 2.0E+5."""
    group = tuple(day_of(_whole(row[at])) if one is Group.DAY else str(row[at]) for at, one in enumerate(groups))
    *whole, energy_wh = row[len(groups) :]
    return UsageSum(group, *map(_whole, whole), float(str(energy_wh)))  # type: ignore[call-arg]  # as many as `sums` asks for


def _whole(number: object) -> int:
    return int(Decimal(str(number)))


def entries(dialect: Dialect, query: LedgerQuery, last: int) -> Statement:
    where, values = _where(dialect, query)
    place = dialect.place(len(values) + 1)
    return (
        f"SELECT {NAMES} FROM ledger WHERE {where} ORDER BY started_at DESC, id LIMIT {place}",  # noqa: S608
        [*values, last],
    )


def _where(dialect: Dialect, query: LedgerQuery) -> Statement:
    parts, values = [], list[object]()

    def add(condition: str, value: object) -> None:
        values.append(value)
        parts.append(f"{condition} {dialect.place(len(values))}")

    add("started_at >=", query.since)
    add("started_at <", query.until)
    for name in _FIELDS:
        value = getattr(query, name)
        if value is not None:
            add(f"{name} =", value)
    if query.asked:
        parts.append("asked <> ''")  # so that the index of those is known to do
    return " AND ".join(parts), values


def _expression(dialect: Dialect, group: Group) -> str:
    return dialect.day(f"started_at + {_SEOUL_S}") if group is Group.DAY else _GROUPS.get(group, group.value)


def names_of(groups: Iterable[Group]) -> list[str]:
    return [group.value for group in groups]
