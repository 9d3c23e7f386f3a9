"""`daemun simulate`: what it shows and writes, and what it says where it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daemun.cli import main

SCENARIO = """\
name: small
about: A few calls.
duration_s: 30
models:
  - {name: m, engine: h100-8b}
traffic:
  - {kind: poisson, per_s: 2, output_tokens: {mean: 50}}
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SCENARIO, encoding="utf-8")
    return path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["simulate", *arguments])
    return int(end.value.code or 0)


def test_table_json_and_page_come_of_one_run(scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told, page = tmp_path / "told.json", tmp_path / "page.html"
    assert run(str(scenario), "--json", str(told), "--html", str(page)) == 0
    said = capsys.readouterr()
    assert "what became of the calls" in said.out
    assert "small, seed 1: A few calls." in said.err
    assert "times real time" in said.err
    assert json.loads(told.read_text(encoding="utf-8"))["scenario"] == "small"
    assert page.read_text(encoding="utf-8").startswith("<!")


def test_seed_decides_what_comes(scenario: Path, tmp_path: Path) -> None:
    def fingerprint(seed: int) -> str:
        told = tmp_path / "told.json"
        run(str(scenario), "--json", str(told), "--seed", str(seed))
        return str(json.loads(told.read_text(encoding="utf-8"))["fingerprint"])

    assert fingerprint(3) == fingerprint(3)
    assert fingerprint(3) != fingerprint(4)


def test_mistake_in_a_scenario_is_one_sentence(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario.write_text(SCENARIO.replace("per_s", "pers"), encoding="utf-8")
    assert run(str(scenario)) == 1
    said = capsys.readouterr().err
    assert "did you mean per_s?" in said
    assert "Traceback" not in said


def test_file_that_could_not_be_written_is_said_before_anything_is_simulated(
    scenario: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(str(scenario), "--html", "/nowhere/page.html") == 1
    said = capsys.readouterr()
    assert "there is no folder /nowhere" in said.err
    assert said.out == ""


def test_help_says_with_what_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    assert "launch-day" in capsys.readouterr().out
