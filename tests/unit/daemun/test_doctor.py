"""The doctor: facts in, findings with remedies out."""

from dataclasses import replace
from pathlib import Path

import pytest

from daemun.doctor import GIB, Facts, Grade, failures, judge, look
from daemun.settings import Settings
from serving.card import Parsers
from serving.spec import InvalidSpec, UnknownModel, read_spec

FIT = Facts(
    python=(3, 11),
    system="Linux",
    cores=2,
    memory_available=20 * GIB,
    disk_free=50 * GIB,
    cpu_flags=frozenset({"avx2", "avx512f"}),
    gpu=False,
    modules=frozenset({"ray", "torch", "vllm"}),
    busy_ports=frozenset(),
    compiled=True,
    specs={"daemun-demo": read_spec("daemun-demo")},
    weights_missing={},
)

PARSED = FIT.specs["daemun-demo"].model_copy(update={"parsers": Parsers(tools="hermse", source="a test")})  # type: ignore[union-attr]


def test_a_fit_machine_has_no_failures() -> None:
    assert failures(judge(FIT, Settings())) == []


@pytest.mark.parametrize(
    ("facts", "subject", "remedy"),
    [
        (replace(FIT, python=(3, 12)), "Python", "Python 3.11"),
        (replace(FIT, system="Darwin"), "Python", "Linux"),
        (replace(FIT, memory_available=2 * GIB), "Memory", "serving.replicas"),
        (replace(FIT, disk_free=GIB), "Disk", "state_dir"),
        (replace(FIT, busy_ports=frozenset({8080})), "Port 8080", "DAEMUN_GATEWAY__PORT"),
        (replace(FIT, busy_ports=frozenset({8265})), "Port 8265", "serving.dashboard_port"),
        (replace(FIT, modules=frozenset({"torch"})), "Engine", "make run"),
        (replace(FIT, specs={"x": UnknownModel("there is no model 'x'")}), "Model x", "serving.models"),
        (replace(FIT, weights_missing={"daemun-demo": Path("/nowhere")}), "Model daemun-demo", "checkpoint"),
        (replace(FIT, specs={"x": InvalidSpec("x.yaml is wrong")}), "Model x", "entry"),
        (replace(FIT, catalog_dir_exists=False), "Catalogue", "daemun.yaml"),
        (replace(FIT, specs={"x": PARSED}, parsers={"tools": frozenset({"hermes"})}), "Model x", "catalogue entry"),
    ],
)
def test_each_obstacle_is_named_with_its_remedy(facts: Facts, subject: str, remedy: str) -> None:
    (finding,) = failures(judge(facts, Settings()))
    assert finding.subject == subject
    assert remedy in finding.remedy
    assert "\n" not in finding.sentence()


def test_a_gpu_that_was_asked_for_must_be_there() -> None:
    settings = Settings.model_validate({"serving": {"device": "gpu"}})
    assert [finding.subject for finding in failures(judge(FIT, settings))] == ["GPU"]


def test_the_gateway_alone_needs_neither_engine_nor_its_ports() -> None:
    bare = replace(FIT, modules=frozenset(), memory_available=GIB, busy_ports=frozenset({8265}))
    assert failures(judge(bare, Settings(), serving=False)) == []


def test_more_replicas_need_more_memory() -> None:
    tight = replace(FIT, memory_available=6 * GIB)
    assert failures(judge(tight, Settings())) == []
    assert failures(judge(tight, Settings.model_validate({"serving": {"replicas": {"daemun-demo": 3}}}))) != []


def test_an_old_processor_is_a_warning() -> None:
    findings = judge(replace(FIT, cpu_flags=frozenset()), Settings())
    assert [finding.subject for finding in findings if finding.grade is Grade.WARNING] == ["Processor"]


def test_looking_at_this_machine_finds_its_python() -> None:
    assert look(Settings()).python == (3, 11)


def test_a_gateway_that_is_not_compiled_works_and_is_mentioned() -> None:
    findings = judge(replace(FIT, compiled=False), Settings())
    assert failures(findings) == []
    (warning,) = [finding for finding in findings if finding.grade is Grade.WARNING]
    assert (warning.subject, "scripts/compile" in warning.remedy) == ("Gateway", True)


def test_rollout_to_a_model_that_is_not_served_is_a_warning() -> None:
    rollouts = [{"model": "daemun-demo", "candidate": "daemun-next", "canary": 0.1}]
    settings = Settings.model_validate({"gateway": {"rollouts": rollouts}})
    findings = judge(FIT, settings)
    assert failures(findings) == []
    (found,) = [finding for finding in findings if finding.subject == "Rollouts"]
    assert (found.grade, found.detail) == (Grade.WARNING, "daemun-next is not among the models that are served here")
    assert all(finding.subject != "Rollouts" for finding in judge(FIT, settings, serving=False))


def test_an_entry_that_is_wrong_and_not_served_is_a_warning() -> None:
    """Of one that is served the model's own finding speaks."""
    wrong = InvalidSpec("x.yaml in the catalogue is not YAML")
    findings = judge(replace(FIT, wrong_entries=[wrong]), Settings(), serving=False)
    assert failures(findings) == []
    assert [finding.detail for finding in findings if finding.grade is Grade.WARNING] == [str(wrong)]
    findings = judge(replace(FIT, specs={"x": wrong}, wrong_entries=[wrong]), Settings())
    assert [finding.subject for finding in findings if finding.grade is not Grade.OK] == ["Model x"]


def test_an_unknown_parser_is_named_with_the_nearest() -> None:
    (finding,) = failures(judge(replace(FIT, specs={"x": PARSED}, parsers={"tools": frozenset({"hermes"})}), Settings()))
    assert "hermse" in finding.sentence()
    assert "did you mean hermes" in finding.sentence()
