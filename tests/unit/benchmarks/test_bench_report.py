"""Tables show what was measured and leave out the rest."""

from __future__ import annotations

from benchmarks.gateway import figures as names
from benchmarks.gateway import report
from benchmarks.gateway.aims import verdicts
from benchmarks.gateway.figures import Figures
from benchmarks.gateway.peers import DAEMUN, DIRECT, SMG
from benchmarks.gateway.setting import Setting

GATEWAYS = (DIRECT, DAEMUN, SMG)


def measured() -> Figures:
    figures = Figures()
    for calls in (9000.0, 9200.0, 9100.0):
        figures.add(names.CALLS_PER_S, DAEMUN, calls)
        figures.add(names.CALLS_PER_S, SMG, calls / 2)
    for megabytes in (70.0, 71.0, 70.5):
        figures.add(names.MEMORY_MB, DAEMUN, megabytes)
    for name in (names.CHURN_CALLS, names.CHURN_ABORTED, names.CHURN_FAILED):
        figures.add(name, DAEMUN, 0.0)
    return figures


def test_gateways_and_parts_that_were_not_measured_are_left_out() -> None:
    text = report.tables(measured(), GATEWAYS)
    assert "| smg " in text
    assert "9,100 (9,000 to 9,200)" in text
    assert "2.00 (2.00 to 2.00)" in text
    assert "| direct" not in text
    assert "whole streams" not in text


def test_lines_of_a_table_are_equally_wide() -> None:
    table = [line for line in report.tables(measured(), GATEWAYS).splitlines() if line.startswith("|")]
    assert len({len(line) for line in table[:4]}) == 1


def test_memory_is_shown_from_start_to_end() -> None:
    lines = report.tables(measured(), GATEWAYS).splitlines()
    assert [line.split() for line in lines if "%" in line] == [
        ["|", "0%", "|", "70.0", "|"],
        ["|", "50%", "|", "71.0", "|"],
        ["|", "100%", "|", "70.5", "|"],
    ]


def test_nothing_measured_gives_no_tables() -> None:
    assert report.tables(Figures(), GATEWAYS) == ""


def test_document_says_where_its_figures_come_from() -> None:
    setting = Setting("2027-01-31", "2 cores", "make bench-gateway", 3, 8.0, {DIRECT: "", DAEMUN: "1.2.3 (abc)", SMG: "4.5"})
    text = report.document(setting, measured(), verdicts(measured()))
    assert "2027-01-31" in text
    assert "- Machine: 2 cores\n- Compared: daemun 1.2.3 (abc), smg 4.5\n- 3 interleaved rounds of 8 s" in text
    assert "| holds | calls_per_s_vs_smg >=2 |" in " ".join(text.split(" ")).replace("  ", " ")
