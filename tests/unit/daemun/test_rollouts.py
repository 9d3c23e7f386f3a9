"""The report on a candidate: from the ledger, in two languages, and as numbers."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from daemun import rollouts
from daemun.context import Context
from daemun.problem import Problem
from daemun.settings import variables
from gateway.adapters.sqlite import store_path
from gateway.adapters.sqlite_ledger import SqliteLedger
from gateway.entry import NOBODY, RETURNED, SHADOW, Entry
from tests.entries import entry, rows

SETTINGS = """
gateway:
  rollouts: [{model: old, candidate: new, canary: 0.1, shadow: 0.05}]
  prices: {models: {old: {prompt: 100, completion: 400}, new: {prompt: 50, completion: 200}}}
"""
AT = ("--since", "1970-01-01", "--until", "2000-01-01")


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteLedger]:
    monkeypatch.chdir(tmp_path)
    for name in variables():
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "daemun.yaml").write_text(SETTINGS, encoding="utf-8")
    with closing(SqliteLedger(store_path(tmp_path / ".daemun/state"))) as store:
        yield store


def calls(model: str, count: int, *, slower: float = 1.0, seed: int = 0, **fields: Any) -> Iterator[Entry]:
    chance = random.Random(f"{model}{seed}{count}{fields}")  # noqa: S311 - a sample
    for number in range(count):
        first_s = slower * chance.uniform(0.2, 0.4)
        named = {"id": f"{model}-{seed}-{fields.get('project', '')}-{number}", "model": model, "asked": "old"} | fields
        times = {"queue_s": 0.0, "first_byte_s": first_s, "duration_s": first_s + slower * chance.uniform(1, 2)}
        yield entry(number, completion_tokens=chance.randrange(80, 120), **(times | named))


def out(*arguments: str) -> str:
    result = CliRunner().invoke(rollouts.app, arguments, obj=Context(), env={"COLUMNS": "220"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def numbers(*arguments: str) -> dict[str, Any]:
    (one,) = json.loads(out("report", *AT, "--json", *arguments))
    assert isinstance(one, dict)
    return one


def test_slower_candidate_is_called_so_in_both_languages(ledger: SqliteLedger) -> None:
    ledger.write(rows([*calls("old", 900), *calls("new", 300, slower=1.5)]))
    shown = out("report", *AT)
    assert "old" in shown.splitlines()[0]
    assert "new (카나리 · canary)" in shown.splitlines()[0]
    assert "The candidate is slower to the first token: +" in shown
    assert "후보 모델은 첫 토큰이 더 늦습니다: +" in shown
    assert "The candidate is slower: it generates fewer tokens per second: -" in shown
    assert "No difference seen (if there is one, it is within): errors -" in shown
    assert "Not enough calls yet to tell: the slowest first tokens (p99)." in shown
    assert "섀도" not in shown


def test_two_that_are_alike_are_not_told_apart(ledger: SqliteLedger) -> None:
    ledger.write(rows([*calls("old", 900), *calls("new", 600)]))
    judgements = numbers()["candidates"]["canary"]["judgements"]
    assert {one["verdict"] for one in judgements} == {"no difference seen"}
    assert all(one["change"]["low"] <= 0 <= one["change"]["high"] for one in judgements)


def test_of_few_calls_nothing_is_said_but_that_they_are_few(ledger: SqliteLedger) -> None:
    ledger.write(rows([*calls("old", 900), *calls("new", 37, slower=5)]))
    shown = out("report", *AT)
    assert "Not enough calls yet: the candidate has 37 of the 100 that a judgement needs." in shown
    assert "판단할 호출이 아직 부족합니다: 후보 모델의 호출은 37건이고 100건이 필요합니다." in shown
    assert "slower" not in shown


def test_candidate_without_calls_is_said_to_have_none(ledger: SqliteLedger) -> None:
    ledger.write(rows(calls("old", 5)))
    assert "Not enough calls yet: new has had none that asked for old." in out("report", *AT)
    assert numbers()["candidates"] == {}


def test_shadows_are_beside_canaries_and_what_was_returned_is_an_error_of_the_candidate(ledger: SqliteLedger) -> None:
    ledger.write(rows([*calls("old", 200), *calls("new", 150), *calls("new", 120, tenant=NOBODY, project=SHADOW)]))
    returned: dict[str, Any] = {"tenant": NOBODY, "project": RETURNED, "first_byte_s": None, "replica": None}
    ledger.write(rows(calls("new", 50, seed=1, outcome="failed", status=502, **returned)))
    ledger.write(rows(calls("new", 7, seed=2, outcome="rejected", status=400, **returned)))
    found = numbers()
    canary, shadow = found["candidates"]["canary"], found["candidates"]["shadow"]
    figures = canary["figures"]
    assert (figures["worked"], figures["failed"], figures["rejected"], figures["returned"]) == (200, 50, 7, 57)
    assert figures["errors"]["value"] == 0.25
    assert (shadow["figures"]["worked"], shadow["figures"]["errors"]["value"]) == (120, 0)
    assert canary["judgements"][0]["verdict"] == "worse"
    assert "The candidate fails more often: +25.00 %p" in canary["sentences"][0]["en"]


def test_calls_that_were_no_part_of_the_rollout_are_left_out(ledger: SqliteLedger) -> None:
    ledger.write(rows([*calls("old", 120), *calls("new", 110), *calls("new", 500, seed=1, asked="", slower=9)]))
    ledger.write(rows([*calls("old", 400, seed=2, asked=""), *calls("new", 300, seed=3, asked="other", slower=9)]))
    found = numbers()
    assert (found["figures"]["worked"], found["candidates"]["canary"]["figures"]["worked"]) == (120, 110)


def test_costs_are_at_each_versions_own_price_and_energy_is_an_estimate(ledger: SqliteLedger) -> None:
    same = {"prompt_tokens": 1000, "cached_tokens": 0, "cost_ukrw": 140_000}
    ledger.write(rows([*calls("old", 100, energy_wh=0.5, **same), *calls("new", 100, energy_wh=0.25, **same)]))
    found = numbers()
    figures, others = found["figures"], found["candidates"]["canary"]["figures"]
    assert figures["cost_krw_mean"]["value"] == pytest.approx(0.14, abs=0.002)
    assert others["cost_krw_mean"]["value"] == pytest.approx(0.07, abs=0.001)
    assert (figures["energy_wh_estimate_mean"]["value"], others["energy_wh_estimate_mean"]["value"]) == (0.5, 0.25)


def test_only_calls_of_the_time_asked_for_are_compared(ledger: SqliteLedger) -> None:
    ledger.write(rows([*calls("old", 120), *calls("new", 110)]))
    (found,) = json.loads(out("report", "--since", "2001-01-01", "--json"))
    assert (found["figures"]["worked"], found["candidates"]) == (0, {})


def test_past_rollout_is_reported_by_its_names(ledger: SqliteLedger) -> None:
    ledger.write(rows([*calls("older", 120, asked="older"), *calls("old", 110, asked="older")]))
    found = numbers("older", "--candidate", "old")
    assert (found["figures"]["worked"], found["candidates"]["canary"]["figures"]["worked"]) == (120, 110)


def test_rollouts_are_listed(ledger: SqliteLedger) -> None:
    assert out("list").splitlines()[1].split() == ["old", "new", "10.0%", "5.0%", "conversation"]
    assert json.loads(out("list", "--json")) == [
        {"model": "old", "candidate": "new", "canary": 0.1, "shadow": 0.05, "sticky": "conversation"}
    ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("solar",), r"^solar has no rollout in the settings \(those that have one: old\)"),
        (("--candidate", "new"), "^--candidate needs the model"),
        (("--since", "yesterday"), "^yesterday is no time"),
    ],
)
def test_report_on_what_there_is_not_is_told_so(ledger: SqliteLedger, arguments: tuple[str, ...], told: str) -> None:
    with pytest.raises(Problem, match=told):
        out("report", *arguments)


def test_report_without_any_rollout_says_what_to_do(ledger: SqliteLedger, tmp_path: Path) -> None:
    (tmp_path / "daemun.yaml").write_text("", encoding="utf-8")
    with pytest.raises(Problem, match="There are no rollouts in the settings"):
        out("report")
