"""`daemun usage statement`: what one tenant used in one month, in Korean and English, for whoever writes the invoice.

Amounts are net, of the prices in force when each call was made. A month is Asia/Seoul's.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from itertools import groupby
from typing import Annotated

import typer

from daemun.ledger import krw, open_ledger
from daemun.problem import Problem
from gateway.ledger_query import SEOUL, Group, LedgerQuery, LedgerStore, UsageSum

_NAME_WIDTH = 26
_WIDTH = 15
_RULE = "  " + "-" * (_NAME_WIDTH + 6 * _WIDTH)


class Format(Enum):
    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Statement:
    """`lines` are by project and model, `total` is over all of them."""

    tenant: str
    begin: datetime
    end: datetime
    made_at: datetime
    lines: Sequence[UsageSum]
    total: UsageSum

    @property
    def is_final(self) -> bool:
        """Whether the month was over when it was made."""
        return self.made_at >= self.end


def statement(
    context: typer.Context,
    tenant: Annotated[str, typer.Option(help="Whose.")],
    month: Annotated[str, typer.Option(help="Of which month, such as 2026-11.")],
    format: Annotated[Format, typer.Option(help="How to write it.")] = Format.TEXT,
) -> None:
    """What a tenant used in a month, by project and model, with net amounts in KRW; in Korean and English."""
    begin, end = _month(month)
    with open_ledger(context.obj.settings()) as store:
        made = make(store, tenant, begin, end, datetime.now(SEOUL))
    typer.echo(to_text(made) if format is Format.TEXT else to_json(made))


def make(store: LedgerStore, tenant: str, begin: datetime, end: datetime, now: datetime) -> Statement:
    """Raises Problem where the tenant has no calls in that time."""
    query = LedgerQuery(since=begin.timestamp(), until=end.timestamp(), tenant=tenant)
    lines = store.sums(query, (Group.PROJECT, Group.MODEL))
    if not lines:
        raise Problem(f"The ledger has no calls of the tenant {tenant} in {begin:%Y-%m}. 'daemun usage' lists who has some.")
    (total,) = store.sums(query, ())
    return Statement(tenant, begin, end, now, lines, total)


def to_json(made: Statement) -> str:
    document = {
        "tenant": made.tenant,
        "month": f"{made.begin:%Y-%m}",
        "since": made.begin.isoformat(),
        "until": made.end.isoformat(),
        "time_zone": "Asia/Seoul",
        "made_at": made.made_at.isoformat(timespec="seconds"),
        "final": made.is_final,
        "currency": "KRW",
        "amounts": "net",
        "energy": "estimate",
        "lines": [{"project": line.group[0], "model": line.group[1], **_numbers(line)} for line in made.lines],
        "total": _numbers(made.total),
    }
    return json.dumps(document, ensure_ascii=False, indent=2)


def to_text(made: Statement) -> str:
    return "\n".join([*_head(made), _RULE, *_lines(made.lines), _RULE, *_foot(made.total)])


def _head(made: Statement) -> list[str]:
    last = "" if made.is_final else "  (이번 달은 아직 끝나지 않았습니다 · the month is not over)"
    return [
        "이용 명세서 · Statement of usage",
        "",
        f"  이용자 · Tenant    {made.tenant}",
        f"  기간 · Period      {made.begin:%Y-%m-%d %H:%M} ~ {made.end:%Y-%m-%d %H:%M} (Asia/Seoul){last}",
        f"  작성 · Made at     {made.made_at:%Y-%m-%d %H:%M:%S}",
        "",
        _row("프로젝트 · 모델", "호출", "입력", "그중 캐시", "출력", "그중 추론", "금액 (원)"),
        _row("Project · model", "calls", "prompt", "of it cached", "completion", "of it reasoned", "KRW, net"),
    ]


def _lines(lines: Iterable[UsageSum]) -> Iterator[str]:
    """Each project's name, and below it its models."""
    for project, its_lines in groupby(lines, lambda line: line.group[0]):
        yield f"  {project}"
        for line in its_lines:
            yield _line(f"  {line.group[1] or '-'}", line)


def _foot(total: UsageSum) -> Iterator[str]:
    yield _line("합계 · Total", total)
    yield ""
    outcomes = f"완료 completed {total.completed:,} · 중단 aborted {total.aborted:,}"
    yield f"  호출 결과 · Outcomes     {outcomes} · 거절 rejected {total.rejected:,} · 실패 failed {total.failed:,}"
    yield f"  추정 전력량 · Energy     {total.energy_wh:,.3f} Wh (모델 수치로 계산한 추정값 · an estimate)"
    if total.estimated:
        yield f"  토큰 수 추정 호출 · Calls whose token counts are estimates: {total.estimated:,}"
    yield "  금액은 공급가액이며 세금은 포함하지 않습니다. · Amounts are net, without taxes."


def _line(name: str, one: UsageSum) -> str:
    tokens = (one.calls, one.prompt_tokens, one.cached_tokens, one.completion_tokens, one.reasoning_tokens)
    return _row(name, *(f"{number:,}" for number in tokens), f"{krw(one.cost_ukrw):,.6f}")


def _row(name: str, *cells: str) -> str:
    return (
        "  "
        + name
        + " " * max(1, _NAME_WIDTH - _columns(name))
        + "".join(" " * (_WIDTH - _columns(cell)) + cell for cell in cells)
    )


def _columns(text: str) -> int:
    """That a terminal needs for it: Hangul takes two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _numbers(one: UsageSum) -> dict[str, object]:
    """Money as text, which no reader rounds."""
    return {
        "calls": one.calls,
        "completed": one.completed,
        "aborted": one.aborted,
        "rejected": one.rejected,
        "failed": one.failed,
        "prompt_tokens": one.prompt_tokens,
        "cached_tokens": one.cached_tokens,
        "completion_tokens": one.completion_tokens,
        "reasoning_tokens": one.reasoning_tokens,
        "cost_krw": f"{krw(one.cost_ukrw):f}",
        "energy_wh_estimate": one.energy_wh,
        "estimated_calls": one.estimated,
    }


def _month(given: str) -> tuple[datetime, datetime]:
    """Its first moment and the next one's. Raises Problem."""
    try:
        begin = datetime.strptime(given, "%Y-%m").replace(tzinfo=SEOUL)
    except ValueError as problem:
        raise Problem(f"{given} is no month. Write it as 2026-11.") from problem
    return begin, begin.replace(year=begin.year + begin.month // 12, month=begin.month % 12 + 1)
