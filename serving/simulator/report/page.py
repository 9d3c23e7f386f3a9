"""A run as one HTML file that needs nothing else: figures and plots, light and dark, English with Korean beside it. Pure but for
its style sheet, `page.css`.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import resources

from serving.simulator.report.chart import Chart, svg
from serving.simulator.report.course import Course, course
from serving.simulator.report.plots import plots
from serving.simulator.report.summary import CallFigures, ModelFigures, Summary, summary
from serving.simulator.report.wording import number, seconds, share
from serving.simulator.result import Result

_MOST_MODELS = 12  # with plots of their own
_CALL_COLUMNS = (
    ("came", "들어온 호출"),
    ("served", "응답함"),
    ("in time", "제시간"),
    ("first token p50", "첫 토큰 p50"),
    ("p99", "p99"),
    ("waited p99", "총 대기 p99"),
    ("turned away", "거절됨"),
    ("failed", "실패"),
    ("under way", "진행 중"),
    ("minutes outside", "목표 밖의 분"),
)
_FLEET_COLUMNS = (
    ("GPU-hours", "GPU 시간"),
    ("replicas, mean", "복제본 평균"),
    ("most", "최대"),
    ("waiting, most", "최대 대기"),
    ("refusals", "거절 횟수"),
    ("lost", "노드와 함께 잃음"),
    ("broke", "고장"),
)


def page(result: Result, figures: Summary | None = None) -> str:
    """The whole file. Of many models, those with the most GPU-hours have plots; all are in the tables."""
    figures = figures or summary(result)
    shown = sorted(figures.models, key=lambda model: (-model.fleet.gpu_hours, model.model))[:_MOST_MODELS]
    title = f"{figures.scenario} · seed {figures.seed}"
    body = [
        f'<header><p class="brand">daemun · 대문</p><h1>{escape(title)}</h1><p>{_lead(figures)}</p></header>',
        _section("Calls", "호출", _call_table(figures) + f"<p>{_RULE}</p>"),
        _section("Replicas and GPUs", "복제본과 GPU", _fleet_table(figures)),
    ]
    if len(figures.models) > 1:
        body.append(_section("All models", "모든 모델", _plots(course(result), "all models")))
    for model in shown:
        body.append(_section(model.model, "", _plots(course(result, model.model), model.model)))
    if len(shown) < len(figures.models):
        body.append(f"<p>{_both(*_left_out(len(figures.models) - len(shown)))}</p>")
    body.append(f'<footer class="quiet">fingerprint {result.fingerprint()}</footer>')
    style = resources.files("serving.simulator.report").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/><meta name="color-scheme" content="light dark"/>'
        f"<title>{escape(title)} · daemun</title><style>{style}</style></head><body><main>{''.join(body)}</main></body></html>\n"
    )


def _left_out(number_of: int) -> tuple[str, str]:
    return f"{number_of} models with fewer GPU-hours are in the tables alone.", f"나머지 모델 {number_of}개는 표에만 있습니다."


_RULE = (
    "In time: the first token within the call's target after it came for the first time. A minute is outside the target if more "
    'than 1 % of its calls were not in time. <span lang="ko">제시간: 처음 들어온 때부터 목표 시간 안에 첫 토큰을 받은 호출. '
    "호출의 1 %가 넘게 늦은 분은 목표 밖으로 셉니다.</span>"
)


def _lead(figures: Summary) -> str:
    calls, fleet = figures.total.calls, figures.total.fleet
    english = (
        f"{number(calls.came)} calls in {seconds(figures.duration_s)}: {share(calls.served, calls.came)} served, "
        f"{share(calls.in_time, calls.came)} in time, with {number(fleet.gpu_hours)} GPU-hours."
    )
    korean = (
        f"{seconds(figures.duration_s)} 동안 호출 {number(calls.came)}건: {share(calls.served, calls.came)} 응답, "
        f"{share(calls.in_time, calls.came)} 제시간, GPU {number(fleet.gpu_hours)}시간."
    )
    return f'{english} <span lang="ko">{korean}</span>'


def _section(english: str, korean: str, inner: str) -> str:
    return f"<section><h2>{_both(english, korean)}</h2>{inner}</section>"


def _both(english: str, korean: str) -> str:
    return escape(english) + (f' <span lang="ko">{escape(korean)}</span>' if korean else "")


def _call_table(figures: Summary) -> str:
    rows = [(model.model, _call_cells(model.calls)) for model in figures.models]
    if len(figures.models) > 1:
        rows.append(("all · 전체", _call_cells(figures.total.calls)))
    if len(figures.tiers) > 1:
        rows += [(f"tier {tier}", _call_cells(calls)) for tier, calls in figures.tiers]
    return _table(_CALL_COLUMNS, rows)


def _call_cells(calls: CallFigures) -> list[str]:
    return [
        number(calls.came),
        share(calls.served, calls.came),
        share(calls.in_time, calls.came),
        seconds(calls.first_token_s[0]),
        seconds(calls.first_token_s[2]),
        seconds(calls.wait_s[2]),
        number(calls.turned_away),
        number(calls.failed),
        number(calls.under_way),
        f"{calls.outside} / {calls.minutes}",
    ]


def _fleet_table(figures: Summary) -> str:
    rows = [(model.model, _fleet_cells(model)) for model in figures.models]
    if len(figures.models) > 1:
        rows.append(("all · 전체", _fleet_cells(figures.total)))
    return _table(_FLEET_COLUMNS, rows)


def _fleet_cells(model: ModelFigures) -> list[str]:
    fleet = model.fleet
    counts = (fleet.ready_mean, fleet.ready_most, fleet.waiting_most, model.calls.refusals, fleet.lost, fleet.broke)
    return [number(fleet.gpu_hours), *map(number, counts)]


def _table(columns: Sequence[tuple[str, str]], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    head = "".join(f'<th scope="col">{_both(*column)}</th>' for column in columns)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for name, cells in rows
    )
    return f'<div class="wide"><table><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _plots(at: Course, of: str) -> str:
    figures = [_figure(english, korean, chart) for english, korean, chart in plots(at, of)]
    return f'<div class="plots">{"".join(figures)}</div>'


def _figure(english: str, korean: str, chart: Chart) -> str:
    keys = [
        _key(f"{'a' if line.is_area else 'k'}{line.colour}{' dashed' if line.is_dashed else ''}", line.name)
        for line in chart.lines
    ]
    if chart.limits:
        keys.append(_key("limit", "target · 목표"))
    return f'<figure><figcaption>{_both(english, korean)}</figcaption>{svg(chart)}<p class="keys">{"".join(keys)}</p></figure>'


def _key(style: str, name: str) -> str:
    return f'<span class="key {style}">{escape(name)}</span>'
