"""A rollout's report as people and programs read it: the figures side by side, then a sentence on each difference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from daemun.comparison import (
    CONFIDENCE,
    LEAST_CALLS,
    Aspect,
    Interval,
    Judgement,
    Sample,
    Verdict,
    judge,
    mean,
    quantile,
    share,
)
from daemun.ledger import in_seoul

METHOD = (
    f"Figures with their {CONFIDENCE:.0%} intervals: shares by Wilson, quantiles by bootstrap, means by the normal distribution. "
    f"Differences are judged at 99 % each, so that all of them hold together with {CONFIDENCE:.0%}."
)
METHOD_KO = (
    f"괄호 안은 {CONFIDENCE:.0%} 신뢰구간입니다(비율: Wilson, 분위수: 부트스트랩, 평균: 정규분포). "
    f"차이는 각각 99 %로 판정하여 전체가 함께 {CONFIDENCE:.0%}로 성립합니다."
)
Show = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Way:
    """How calls came to the candidate: as canaries or as shadows. `returned` of them went back to the model."""

    name: str
    sample: Sample
    returned: int = 0

    @property
    def korean(self) -> str:
        return {"canary": "카나리", "shadow": "섀도"}[self.name]


@dataclass(frozen=True, slots=True)
class Report:
    """`is_cut`: there were more calls, of which these are the newest."""

    model: str
    candidate: str
    since: float
    until: float
    own: Sample
    ways: tuple[Way, ...]
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """One row. None where too few calls tell it."""

    name: str
    korean: str
    of: Callable[[Sample], Interval | None]
    show: Show


FIGURES = (
    Figure("errors", "오류", lambda one: share(one.failed, one.worked), "{:.2%}".format),
    Figure("left_by_clients", "이용자 중단", lambda one: share(one.aborted, one.worked), "{:.2%}".format),
    Figure("first_token_p50_s", "첫 토큰 중앙값", lambda one: quantile(one.first_token_s, 0.5), "{:.3f}".format),
    Figure("first_token_p99_s", "첫 토큰 99 %", lambda one: quantile(one.first_token_s, 0.99), "{:.3f}".format),
    Figure("tokens_per_s_p50", "초당 토큰 중앙값", lambda one: quantile(one.tokens_per_s, 0.5), "{:.1f}".format),
    Figure("output_tokens_mean", "출력 토큰 평균", lambda one: mean(one.output_tokens), "{:.1f}".format),
    Figure("cost_krw_mean", "호출당 정가 (원)", lambda one: mean(one.cost_krw), "{:.4f}".format),
    Figure("energy_wh_estimate_mean", "호출당 전력량 추정 (Wh)", lambda one: mean(one.energy_wh), "{:.4f}".format),
)


def table_of(report: Report) -> Table:
    heads = [report.model, *(f"{report.candidate} ({way.korean} · {way.name})" for way in report.ways)]
    table = Table("", *heads, box=None, pad_edge=False)
    samples = [report.own, *(way.sample for way in report.ways)]
    table.add_row("처리한 호출 · calls", *(f"{one.worked:,}" for one in samples))
    table.add_row("거절 · rejected", *(f"{one.rejected:,}" for one in samples))
    table.add_row("되돌아감 · returned", "", *(f"{way.returned:,}" for way in report.ways))
    for figure in FIGURES:
        cells = (_cell(figure.of(one), figure.show) for one in samples)
        table.add_row(f"{figure.korean} · {figure.name}", *cells)
    return table


def lines_of(report: Report) -> Iterator[str]:
    """What is said below the table."""
    yield f"{in_seoul(report.since):%Y-%m-%d %H:%M} ~ {in_seoul(report.until):%Y-%m-%d %H:%M} (Asia/Seoul)"
    if report.is_cut:
        yield "호출이 많아 가장 최근 것만 비교했습니다. · There were more calls; these are the newest."
    if not report.ways:
        yield (
            f"아직 후보 모델이 받은 호출이 없습니다. · Not enough calls yet: {report.candidate} has had none that asked for "
            f"{report.model}."
        )
    for way in report.ways:
        yield f"판정 · Judgement ({way.korean} · {way.name})"
        for korean, english in sentences(report.own, way.sample):
            yield f"  {korean}"
            yield f"  {english}"
    yield METHOD_KO
    yield METHOD


def to_json(report: Report) -> dict[str, Any]:
    return {
        "model": report.model,
        "candidate": report.candidate,
        "since": in_seoul(report.since).isoformat(timespec="seconds"),
        "until": in_seoul(report.until).isoformat(timespec="seconds"),
        "newest_calls_only": report.is_cut,
        "figures": _numbers(report.own),
        "candidates": {
            way.name: {
                "figures": _numbers(way.sample) | {"returned": way.returned},
                "judgements": [_judgement(one) for one in judge(report.own, way.sample)],
                "sentences": [{"ko": ko, "en": en} for ko, en in sentences(report.own, way.sample)],
            }
            for way in report.ways
        },
        "confidence": CONFIDENCE,
        "method": METHOD,
    }


def sentences(model: Sample, candidate: Sample) -> list[tuple[str, str]]:
    """In Korean and in English: what differs first, then what was seen to be alike, then what cannot be told yet."""
    judged = judge(model, candidate)
    if min(model.worked, candidate.worked) < LEAST_CALLS:
        few = min(model.worked, candidate.worked)
        whose = ("후보 모델", "the candidate") if candidate.worked == few else ("기존 모델", "the model")
        return [
            (
                f"판단할 호출이 아직 부족합니다: {whose[0]}의 호출은 {few:,}건이고 {LEAST_CALLS}건이 필요합니다.",
                f"Not enough calls yet: {whose[1]} has {few:,} of the {LEAST_CALLS} that a judgement needs.",
            )
        ]
    differs = [_difference(one, one.change) for one in judged if one.change is not None and one.verdict is not Verdict.SAME]
    return [*differs, *_alike([one for one in judged if one.verdict is Verdict.SAME]), *_unknown(judged)]


_NAMES = {
    Aspect.ERRORS: ("오류율", "errors"),
    Aspect.FIRST: ("첫 토큰 중앙값", "the median first token"),
    Aspect.TAIL: ("첫 토큰 99 %", "the slowest first tokens (p99)"),
    Aspect.SPEED: ("생성 속도", "tokens per second"),
    Aspect.OUTPUT: ("출력 길이", "output length"),
}
_MORE = {
    Aspect.ERRORS: ("후보 모델은 오류가 더 많습니다", "The candidate fails more often"),
    Aspect.FIRST: ("후보 모델은 첫 토큰이 더 늦습니다", "The candidate is slower to the first token"),
    Aspect.TAIL: ("후보 모델은 가장 느린 첫 토큰(p99)이 더 늦습니다", "The candidate's slowest first tokens (p99) come later"),
    Aspect.SPEED: ("후보 모델은 생성이 더 빠릅니다", "The candidate generates faster"),
    Aspect.OUTPUT: ("후보 모델은 답이 더 깁니다", "The candidate's answers are longer"),
}
_LESS = {
    Aspect.ERRORS: ("후보 모델은 오류가 더 적습니다", "The candidate fails less often"),
    Aspect.FIRST: ("후보 모델은 첫 토큰이 더 빠릅니다", "The candidate is faster to the first token"),
    Aspect.TAIL: ("후보 모델은 가장 느린 첫 토큰(p99)이 더 빠릅니다", "The candidate's slowest first tokens (p99) come sooner"),
    Aspect.SPEED: ("후보 모델은 생성이 더 느립니다", "The candidate is slower: it generates fewer tokens per second"),
    Aspect.OUTPUT: ("후보 모델은 답이 더 짧습니다", "The candidate's answers are shorter"),
}


def _difference(one: Judgement, change: Interval) -> tuple[str, str]:
    ko, en = (_MORE if change.value > 0 else _LESS)[one.aspect]
    by = f"{_change(one.aspect, change.value)} ({_change(one.aspect, change.low)} … {_change(one.aspect, change.high)})"
    return f"{ko}: {by}.", f"{en}: {by}."


def _alike(judged: Sequence[Judgement]) -> Iterator[tuple[str, str]]:
    if not judged:
        return
    parts = [(_NAMES[one.aspect], _range(one)) for one in judged]
    ko = ", ".join(f"{name[0]} {bounds}" for name, bounds in parts)
    en = ", ".join(f"{name[1]} {bounds}" for name, bounds in parts)
    yield f"차이가 보이지 않습니다 (있다면 이 안입니다): {ko}.", f"No difference seen (if there is one, it is within): {en}."


def _unknown(judged: Sequence[Judgement]) -> Iterator[tuple[str, str]]:
    names = [_NAMES[one.aspect] for one in judged if one.verdict is Verdict.NOT_ENOUGH]
    if names:
        yield (
            f"호출이 부족해 아직 알 수 없습니다: {', '.join(name[0] for name in names)}.",
            f"Not enough calls yet to tell: {', '.join(name[1] for name in names)}.",
        )


def _range(one: Judgement) -> str:
    return "" if one.change is None else f"{_change(one.aspect, one.change.low)} … {_change(one.aspect, one.change.high)}"


def _change(aspect: Aspect, value: float) -> str:
    return f"{100 * value:+.2f} %p" if aspect is Aspect.ERRORS else f"{100 * value:+.0f} %"


def _cell(found: Interval | None, show: Show) -> str:
    return "–" if found is None else f"{show(found.value)} ({show(found.low)} … {show(found.high)})"


def _numbers(one: Sample) -> dict[str, Any]:
    counts = {name: getattr(one, name) for name in ("worked", "rejected", "completed", "aborted", "failed")}
    return counts | {figure.name: _interval(figure.of(one)) for figure in FIGURES}


def _judgement(one: Judgement) -> dict[str, Any]:
    return {"aspect": one.aspect.value, "verdict": one.verdict.value, "change": _interval(one.change)}


def _interval(found: Interval | None) -> dict[str, float] | None:
    return None if found is None else asdict(found)
