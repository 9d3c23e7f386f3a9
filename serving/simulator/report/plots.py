"""Which plots an operator sees of a model, or of all together. Pure."""

from __future__ import annotations

from serving.simulator.report.chart import Chart, Line
from serving.simulator.report.course import Course

_MOST_LIMITS = 3  # targets that are marked, the commonest first


def plots(at: Course, of: str) -> list[tuple[str, str, Chart]]:
    """Each with its title in English and Korean. `of`: whose they are."""
    every = _every(at.window_s)
    return [
        (f"Calls waiting, the most {every}", "대기 중인 호출, 최대", _waiting(at, of)),
        ("Replicas", "복제본", _replicas(at, of)),
        (f"Time to first token, of calls that came {every}", "첫 토큰까지의 시간", _first_token(at, of)),
        ("GPU-hours since the beginning", "누적 GPU 시간", _gpu_hours(at, of)),
        (f"Calls turned away or lost {every}", "거절되거나 실패한 호출", _rejections(at, of)),
    ]


def _waiting(at: Course, of: str) -> Chart:
    return Chart(f"Calls waiting, {of}", at.window_s, [Line("waiting · 대기", at.waiting, 1)], is_whole=True)


def _replicas(at: Course, of: str) -> Chart:
    lines = [
        Line("ready · 준비됨", at.ready, 1, is_area=True),
        Line("starting · 시작 중", at.starting, 2, is_area=True),
        Line("draining · 비우는 중", at.draining, 3, is_area=True),
        Line("wanted · 필요", at.wanted, 4, is_dashed=True),
    ]
    return Chart(f"Replicas, {of}", at.window_s, lines, is_whole=True)


def _first_token(at: Course, of: str) -> Chart:
    lines = [Line("p50", at.first_token_p50_s, 1), Line("p99", at.first_token_p99_s, 2, is_dashed=True)]
    return Chart(f"Time to first token, {of}", at.window_s, lines, limits=at.targets_s[:_MOST_LIMITS], is_log=True)


def _gpu_hours(at: Course, of: str) -> Chart:
    return Chart(f"GPU-hours, {of}", at.window_s, [Line("GPU-hours · GPU 시간", at.gpu_hours, 1)])


def _rejections(at: Course, of: str) -> Chart:
    lines = [Line("turned away · 거절", at.refusals, 2), Line("failed · 실패", at.failures, 4, is_dashed=True)]
    return Chart(f"Rejections, {of}", at.window_s, lines, is_whole=True)


def _every(window_s: float) -> str:
    if window_s < 60:
        return f"in each {window_s:g} s"
    minutes = window_s / 60
    return f"in each {minutes:g} min" if minutes < 60 else f"in each {minutes / 60:g} h"
