"""What people see of a run: tables that fit, a page that is well-formed, needs nothing from elsewhere and can be read aloud."""

import math
import re
from io import StringIO
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from serving.simulator.report.chart import Chart, Line, svg
from serving.simulator.report.page import page
from serving.simulator.report.summary import summary
from serving.simulator.report.terminal import tables
from serving.simulator.report.wording import clock, number, seconds, share
from serving.simulator.result import Result
from tests.unit.serving.simulator.made_result import busy_result, made_result


def parsed(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)  # noqa: S314 - our own


def shown(result: Result, width: int) -> str:
    console = Console(width=width, file=StringIO())
    for table in tables(result, summary(result)):
        console.print(table)
    return console.file.getvalue() if isinstance(console.file, StringIO) else ""


@pytest.mark.parametrize("seed", [1, 2])
def test_page_is_well_formed_and_needs_nothing_else(seed: int) -> None:
    text = page(busy_result(seed))
    root = parsed(text.removeprefix("<!DOCTYPE html>"))
    assert {element.tag for element in root.iter()}.isdisjoint({"script", "link", "img", "iframe", "object"})
    assert not re.search(r"""(src|href)=|url\(|@import|https?://(?!www\.w3\.org/2000/svg)""", text)
    assert "prefers-color-scheme: dark" in text


def test_page_has_five_plots_for_each_model_and_for_all() -> None:
    root = parsed(page(busy_result(1)).removeprefix("<!DOCTYPE html>"))
    titles = [each.text for each in root.iter("{http://www.w3.org/2000/svg}title")]
    kinds = ("Calls waiting", "Replicas", "Time to first token", "GPU-hours", "Rejections")
    assert titles == [f"{kind}, {of}" for of in ("all models", "solar", "kanana") for kind in kinds]


def test_titles_have_korean_beside_english() -> None:
    root = parsed(page(busy_result(1)).removeprefix("<!DOCTYPE html>"))
    captions = list(root.iter("figcaption"))
    assert captions
    for caption in captions:
        korean = caption.find("span[@lang='ko']")
        assert korean is not None
        assert re.search("[가-힣]|GPU", korean.text or "")


def test_only_the_largest_of_many_models_have_plots_and_all_are_in_the_tables() -> None:
    names = tuple(f"model-{number}" for number in range(20))
    text = page(busy_result(1, models=names, calls=100))
    assert text.count("<svg") == 5 * 13
    assert "8 models with fewer GPU-hours are in the tables alone." in text
    assert all(f">{name}</th>" in text for name in names)


def test_names_are_text_and_never_markup() -> None:
    result = made_result([], models=("<b>&'\"",))
    result.scenario = "</title><script>alert(1)</script>"
    root = parsed(page(result).removeprefix("<!DOCTYPE html>"))
    assert "script" not in {element.tag for element in root.iter()}


@pytest.mark.parametrize("width", [80, 160])
def test_tables_keep_every_figure_however_narrow_the_terminal(width: int) -> None:
    result = busy_result(1, ("a-model-with-a-rather-long-name", "solar"))
    text = shown(result, width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert all(word in text for word in ("minutes", "outside", "broke", "fingerprint"))
    figures = summary(result)
    for figure in (number(figures.total.calls.came), share(figures.total.calls.in_time, figures.total.calls.came)):
        assert figure in text


values = st.one_of(st.floats(0, 1e9), st.just(math.nan), st.integers(0, 10**6).map(float))


@given(st.lists(values, min_size=1, max_size=40), st.booleans(), st.booleans(), st.sampled_from([1.0, 60.0, 3600.0, 864_000.0]))
def test_every_point_of_a_plot_is_inside_it(figures: list[float], is_log: bool, is_whole: bool, window_s: float) -> None:
    drawn = svg(Chart("a <plot>", window_s, [Line("one", figures, 1)], (2.0,) if is_log else (), is_log, is_whole))
    root = parsed(drawn)
    for element in root.iter():
        for pair in (element.get("points") or "").split():
            x, y = map(float, pair.split(","))
            assert 62 - 0.1 <= x <= 706.1
            assert 10 - 0.1 <= y <= 204.1
    known = sum(value == value for value in figures)
    points = "".join(each.get("points") or "" for each in root.iter("{http://www.w3.org/2000/svg}polyline"))
    assert points.count(",") == 2 * known


def test_areas_lie_on_top_of_each_other() -> None:
    drawn = parsed(svg(Chart("", 1.0, [Line("a", [2.0], 1, is_area=True), Line("b", [2.0], 2, is_area=True)], is_whole=True)))
    first, second = (each.get("points") or "" for each in drawn.iter("{http://www.w3.org/2000/svg}polygon"))
    assert first == "62.0,107.0 706.0,107.0 706.0,204.0 62.0,204.0"
    assert second == "62.0,10.0 706.0,10.0 706.0,107.0 62.0,107.0"


def test_counts_of_things_have_no_parts_on_their_axis() -> None:
    drawn = svg(Chart("", 1.0, [Line("a", [1.0, 2.0], 1)], is_whole=True))
    assert re.findall(r'text-anchor="end">([0-9.]+)</text>', drawn) == ["0", "1", "2"]


def test_times_have_an_axis_of_powers_of_ten() -> None:
    drawn = svg(Chart("", 1.0, [Line("p50", [0.05, math.nan], 1), Line("p99", [0.3, 70.0], 2)], limits=(2.0,), is_log=True))
    assert re.findall(r'text-anchor="end">([^<]+)</text>', drawn)[:5] == ["10 ms", "100 ms", "1 s", "10 s", "100 s"]


def test_figures_are_worded_for_people() -> None:
    assert [seconds(value) for value in (0.0123, 0.9999, 12.34, 99.96, 240.0, 9000.0, math.nan)] == [
        *("12 ms", "1 s", "12.3 s", "1.67 min", "4 min", "2.5 h", "–"),
    ]
    assert [share(99_999, 100_000), share(1, 100_000), share(1, 1), share(0, 5), share(1, 3), share(0, 0)] == [
        *(">99.9 %", "<0.1 %", "100 %", "0 %", "33.3 %", "–"),
    ]
    assert [number(value) for value in (0.0, 3, 1234567, 3.14159, 123.4, math.nan)] == ["0", "3", "1,234,567", "3.14", "123", "–"]
    assert [clock(at) for at in (0, 300, 48_600, 187_200)] == ["0:00", "0:05", "13:30", "2 d 4:00"]
