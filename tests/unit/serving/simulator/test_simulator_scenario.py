"""Scenarios: read as a whole, or refused with one sentence that names the place."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from serving.simulator import scenario as scenarios
from serving.simulator.crowd import visits
from serving.simulator.scenario import ScenarioError, parse_scenario, read_scenario
from tests.unit.serving.simulator.fleets import scenario

GOOD = """\
name: small
duration_s: 60
gpus:
  - {name: node, kind: H100, nodes: 1}
models:
  - {name: m, engine: h100-8b, replicas: {least: 1, most: 4}}
traffic:
  - {kind: poisson, per_s: 5}
"""


@pytest.mark.parametrize("name", scenarios.names())
def test_scenarios_that_come_with_daemun_can_be_used(name: str) -> None:
    told = read_scenario(Path(name))
    assert told.name == name
    assert told.about
    assert next(iter(visits(told))).at < told.duration_s


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("duration_s", "duration", r"x: duration \(line 2\) is no key that daemun knows; did you mean duration_s\?"),
        ("engine: h100-8b", "engine: h100-9b", r"there is no engine 'h100-9b'; did you mean h100-8b\?"),
        ("least: 1", "least: 9", r"models.0.replicas .*replicas need least <= start <= most, not 9, 9 and 4"),
        ("kind: poisson", "kind: poison", r"traffic.0 .*'poison'.*'poisson'"),
        ("per_s: 5", "per_s: 0", r"traffic.0.per_s \(line 8\): Input should be greater than 0"),
        ("per_s: 5", "per_s: 5, model: n", r"traffic.0.model: there is no model 'n'; there are m"),
        ("per_s: 5", "per_s: 5, tenants: [ap]", r"traffic.0.tenants: there is no tenant 'ap'; did you mean app\?"),
        ("per_s: 5", "per_s: 5, output_tokens: {mean: 5, least: 9, most: 3}", r"tokens need least <= most, not 9 and 3"),
        ("most: 4}", "most: 4}, runs_on: [{kind: A100}]", r"models.0.runs_on.0.kind: there is no kind of GPU 'A100'"),
        ("most: 4}", "most: 4}, runs_on: [{kind: H100, gpus: 2, part: 0.5}]", r"several GPUs are whole ones"),
        ("nodes: 1", "nodes: 1, volatile: true", r"models.0.replicas.least: nothing is promised on nodes that may leave"),
        ("traffic:", "reservations: [{name: r, team: house, gpus: 9}]\ntraffic:", r"reserv.*9"),
        ("traffic:", "tenants: [{name: a}, {name: a}]\ntraffic:", r"tenants has 'a' twice"),
        ("traffic:", "autoscaling: {bounds: {use: 2}}\ntraffic:", r"use must be above 0 and at most 1, not 2"),
        ("traffic:", "rules: {busy: 2}\ntraffic:", r"rules.busy \(line 7\) is no key that daemun knows; did you mean busy_s\?"),
        ("{kind: poisson, per_s: 5}", "{kind: trace, path: none.csv}", r"line 8: traffic.0.path: there is no file .*none.csv"),
        ("name: small", "- name", r"x is not YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(was: str, becomes: str, said: str) -> None:
    assert parse_scenario(GOOD, "x").name == "small"
    with pytest.raises(ScenarioError, match=said) as problem:
        parse_scenario(GOOD.replace(was, becomes), "x")
    assert "\n" not in str(problem.value)


def test_scenario_that_there_is_not_is_named_with_one_that_there_is() -> None:
    with pytest.raises(ScenarioError, match=r"no scenario 'launch-dai'; did you mean launch-day\?"):
        read_scenario(Path("launch-dai"))
    with pytest.raises(ScenarioError, match=r"nowhere.yaml cannot be read"):
        read_scenario(Path("nowhere.yaml"))


def test_without_gpus_there_are_as_many_as_the_models_may_want() -> None:
    facts = scenario(gpus=[], models=[{"name": "m", "engine": "h100-8b", "replicas": {"least": 1, "most": 7}}]).facts()
    assert sum(node.gpus for node in facts.nodes) == 7


def test_visits_come_in_order_by_share_and_are_the_same_again() -> None:
    told = scenario(
        tenants=[{"name": "few", "share": 1}, {"name": "many", "tier": "paid", "share": 3, "count": 2}],
        traffic=[{"kind": "poisson", "per_s": 20.0}, {"kind": "gamma", "per_s": 5.0, "variation": 2.0, "tenants": ["few"]}],
    )
    came = list(visits(told))
    assert [visit.at for visit in came] == sorted(visit.at for visit in came)
    assert came == list(visits(told))
    assert came != list(visits(told, 99))
    by_tenant = Counter(visit.tenant for visit in came)
    assert set(by_tenant) == {"few", "many-1", "many-2"}
    assert by_tenant["many-1"] + by_tenant["many-2"] == pytest.approx(20 * 120 * 0.75, rel=0.1)
    assert all(visit.prompt_tokens + visit.output_tokens <= 32_768 for visit in came)


def test_trace_lies_beside_its_scenario(tmp_path: Path) -> None:
    (tmp_path / "calls.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,374,44\n2023-11-16 18:17:05.0,100,10\n"
    )
    text = GOOD.replace("{kind: poisson, per_s: 5}", "{kind: trace, path: calls.csv, begin_s: 7}")
    (tmp_path / "mine.yaml").write_text(text)
    came = list(visits(read_scenario(tmp_path / "mine.yaml")))
    assert [(round(visit.at, 2), visit.prompt_tokens, visit.output_tokens) for visit in came] == [(7.0, 374, 44), (8.02, 100, 10)]
    assert {visit.expected_tokens for visit in came} == {27}


def test_surge_comes_again_as_told() -> None:
    came = list(visits(scenario(traffic=[{"kind": "surge", "users": 50, "within_s": 10.0}])))
    assert len(came) == 50
    assert all(visit.comes_again for visit in came)
    assert len({visit.caller for visit in came}) == 50
