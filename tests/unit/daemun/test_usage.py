"""What the ledger holds comes out as a table, CSV, JSON or Parquet, by what is asked; and statements by tenant and month."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from daemun import usage
from daemun.context import Context
from daemun.ledger import with_catalogue_energy
from daemun.problem import Problem
from daemun.settings import variables
from gateway.adapters.sqlite import store_path
from gateway.adapters.sqlite_ledger import SqliteLedger
from gateway.entry import Entry
from gateway.ledger_query import SEOUL
from gateway.settings import EnergySettings, EnergyTable, GatewaySettings
from tests.entries import entry, rows

MIDNIGHT = datetime(2026, 11, 1, tzinfo=SEOUL).timestamp()


def at_hour(hour: int, **changes: object) -> Entry:
    return entry(hour, **{"started_at": MIDNIGHT + 3600 * hour, "model": "exaone", **changes})


@pytest.fixture(autouse=True)
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteLedger]:
    monkeypatch.chdir(tmp_path)
    for name in variables():
        monkeypatch.delenv(name, raising=False)
    with closing(SqliteLedger(store_path(tmp_path / ".daemun/state"))) as store:
        entries = [
            at_hour(1),
            at_hour(2, model="solar", outcome="aborted"),
            at_hour(3, tenant="shop", project="상담봇", key_id="key_2", tier="free", estimated=True),
            at_hour(4, tenant="shop", project="상담봇", outcome="rejected", status=503, replica=None, queue_s=None, cost_ukrw=0),
            at_hour(-1),  # in October
        ]
        store.write(rows(entries))
        yield store


def out(*arguments: str) -> str:
    result = CliRunner().invoke(usage.app, arguments, obj=Context(), env={"COLUMNS": "220"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


SINCE = ("--since", "2026-11-01")


def test_sums_are_shown_by_tenant_project_key_and_model() -> None:
    lines = out(*SINCE).splitlines()
    assert lines[0].split()[:5] == ["tenant", "project", "key", "model", "calls"]
    assert [line.split()[:5] for line in lines[1:]] == [
        ["school", "homework", "key_1", "exaone", "1"],
        ["school", "homework", "key_1", "solar", "1"],
        ["shop", "상담봇", "key_1", "exaone", "1"],
        ["shop", "상담봇", "key_2", "exaone", "1"],
    ]


@pytest.mark.parametrize(
    ("filters", "calls"),
    [
        ((), 4),
        (("--until", "2026-11-01T03:00"), 2),
        (("--tenant", "shop"), 2),
        (("--project", "homework", "--model", "solar"), 1),
        (("--key", "key_2"), 1),
        (("--tier", "free"), 1),
        (("--outcome", "rejected"), 1),
        (("--tenant", "nobody"), 0),
    ],
)
def test_filters_leave_what_they_name(filters: tuple[str, ...], calls: int) -> None:
    records = json.loads(out(*SINCE, *filters, "--group-by", "day", "--format", "json"))
    assert sum(record["calls"] for record in records) == calls
    assert {record["day"] for record in records} <= {"2026-11-01"}


def test_csv_has_exact_money() -> None:
    records = list(csv.DictReader(io.StringIO(out(*SINCE, "--group-by", "tenant", "--group-by", "model", "--format", "csv"))))
    assert [(record["tenant"], record["model"], record["cost_krw"]) for record in records] == [
        ("school", "exaone", "1.234567"),
        ("school", "solar", "1.234567"),
        ("shop", "exaone", "1.234567"),
    ]
    assert records[2]["calls"] == "2"
    assert records[2]["estimated_calls"] == "1"


def test_calls_can_be_exported_one_a_line(tmp_path: Path) -> None:
    out(*SINCE, "--calls", "2", "--format", "csv", "--output", "calls.csv")
    newest, other = csv.DictReader(io.StringIO((tmp_path / "calls.csv").read_text(encoding="utf-8")))
    assert (newest["id"], newest["started_at"]) == ("req_4", "2026-11-01T04:00:00.000+09:00")
    assert (newest["replica"], newest["queue_s"], newest["cost_krw"]) == ("", "", "0.000000")
    assert (other["project"], other["estimated"], other["energy_wh_estimate"]) == ("상담봇", "True", "0.25")


def test_calls_are_listed_for_people_with_estimates_marked() -> None:
    lines = out(*SINCE, "--calls", "2").splitlines()
    assert "rejected" in lines[1]
    assert "~1000" in lines[2]


@pytest.mark.parametrize("arguments", [("--calls", "9"), ("--group-by", "day"), ("--group-by", "model", "--tenant", "shop")])
def test_parquet_says_the_same_as_json(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    out(*SINCE, *arguments, "--format", "parquet", "--output", "usage.parquet")
    table = pq.read_table(tmp_path / "usage.parquet")
    records = json.loads(out(*SINCE, *arguments, "--format", "json"))
    assert table.num_rows == len(records) > 0
    for found, expected in zip(table.to_pylist(), records, strict=True):
        assert found.pop("cost_krw") == Decimal(expected.pop("cost_krw"))
        if "started_at" in found:
            assert found.pop("started_at") == datetime.fromisoformat(expected.pop("started_at"))
        assert found == expected


def test_parquet_without_pyarrow_or_a_file_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Problem, match="--output"):
        out("--format", "parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Problem, match=r"install daemun\[parquet\]"):
        out("--format", "parquet", "--output", "usage.parquet")


@pytest.mark.parametrize("given", ["yesterday", "2026-13-01", ""])
def test_time_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(Problem, match="is no time"):
        out("--since", given)


def test_statement_is_of_one_tenant_and_month_in_both_languages() -> None:
    text = out("statement", "--tenant", "school", "--month", "2026-11")
    assert "이용 명세서 · Statement of usage" in text
    assert "2026-11-01 00:00 ~ 2026-12-01 00:00 (Asia/Seoul)" in text
    assert re.search(r"calls +prompt +of it cached +completion +of it reasoned +KRW, net$", text, re.MULTILINE)
    homework, exaone, solar = text.splitlines()[9:12]
    assert homework.strip() == "homework"
    assert exaone.split() == ["exaone", "1", "1,000", "400", "200", "50", "1.234567"]
    assert solar.split()[0] == "solar"
    (total,) = (line for line in text.splitlines() if "Total" in line)
    assert total.split()[3:] == ["2", "2,000", "800", "400", "100", "2.469134"]
    assert "완료 completed 1 · 중단 aborted 1" in text
    assert "0.500 Wh" in text
    assert "shop" not in text


def test_statement_as_json_is_exact_and_says_what_is_an_estimate() -> None:
    made = json.loads(out("statement", "--tenant", "shop", "--month", "2026-11", "--format", "json"))
    assert (made["month"], made["since"], made["until"]) == ("2026-11", "2026-11-01T00:00:00+09:00", "2026-12-01T00:00:00+09:00")
    assert (made["currency"], made["amounts"], made["energy"]) == ("KRW", "net", "estimate")
    (line,) = made["lines"]
    assert (line["project"], line["model"], line["calls"], line["rejected"], line["cost_krw"]) == (
        "상담봇",
        "exaone",
        2,
        1,
        "1.234567",
    )
    assert made["total"]["estimated_calls"] == 1


def test_statement_of_december_ends_with_the_year() -> None:
    with pytest.raises(Problem, match="no calls of the tenant school in 2026-12"):
        out("statement", "--tenant", "school", "--month", "2026-12")
    with pytest.raises(Problem, match="is no month"):
        out("statement", "--tenant", "school", "--month", "2026-13")


def test_catalogue_gives_energy_figures_where_the_settings_give_none() -> None:
    filled = with_catalogue_energy(GatewaySettings())
    assert filled.rates().energy("daemun-demo").completion_wh > 0
    own = GatewaySettings(energy=EnergyTable(models={"daemun-demo": EnergySettings(prompt=1.0, completion=2.0)}))
    assert with_catalogue_energy(own).rates().energy("daemun-demo").completion_wh == 2.0


def test_broken_entry_of_one_model_stops_no_gateway(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "broken.yaml").write_text("id: [")
    assert with_catalogue_energy(GatewaySettings(), tmp_path).rates().energy("daemun-demo").completion_wh > 0
    assert "broken.yaml in the catalogue is not YAML" in caplog.text
