"""Parsers by name: what the installed vLLM has, and what is said of one that it has not."""

import sys
from pathlib import Path

import pytest

from serving import parser
from serving.card import Parsers
from serving.parser import Known, known_parsers, unknown_parser
from serving.spec import known_models, read_spec

KNOWN: Known = {"reasoning": frozenset({"deepseek_r1", "qwen3"}), "tools": frozenset({"hermes", "mistral"})}


def named(reasoning: str | None = None, tools: str | None = None) -> Parsers:
    return Parsers(reasoning=reasoning, tools=tools, source="a test")


def test_known_parsers_pass() -> None:
    assert unknown_parser(named("qwen3", "hermes"), KNOWN) is None
    assert unknown_parser(named(), KNOWN) is None
    assert unknown_parser(None, KNOWN) is None


def test_unknown_parser_comes_with_the_nearest() -> None:
    said = unknown_parser(named(tools="hermse"), KNOWN)
    assert said == "parsers.tools: the installed vLLM has no parser 'hermse'; did you mean hermes?"
    assert "did you mean deepseek_r1?" in (unknown_parser(named("deepseek-r1"), KNOWN) or "")


def test_unknown_parser_unlike_any_comes_with_all() -> None:
    assert (unknown_parser(named("zzzzz"), KNOWN) or "").endswith("it has deepseek_r1, qwen3")


def test_without_vllm_nothing_is_said() -> None:
    assert unknown_parser(named("zzzzz", "zzzzz"), {}) is None


def test_names_are_read_without_running_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "vllm"
    (package / "tool_parsers").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError")
    (package / "tool_parsers" / "__init__.py").write_text(
        '_TOOL_PARSERS_TO_REGISTER = {"own": ("file", "Class")}\nraise RuntimeError'
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "vllm", raising=False)  # what another test has imported would be found first
    assert known_parsers.__wrapped__() == {"tools": frozenset({"own"})}


@pytest.mark.skipif(not known_parsers(), reason="vLLM is not installed")
@pytest.mark.parametrize("model", known_models())
def test_catalogue_names_parsers_that_the_pinned_vllm_has(model: str) -> None:
    assert set(parser.known_parsers()) == {"reasoning", "tools"}
    assert unknown_parser(read_spec(model).parsers, known_parsers()) is None
