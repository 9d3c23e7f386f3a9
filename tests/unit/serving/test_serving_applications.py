"""Reloads: what Serve is asked for when settings change, and what when a new version does not start."""

from typing import Any

import pytest
from ray.serve import Application
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview

from serving.applications import Applications, CannotStart, changes_at_next_start, most_cpus
from serving.placement import Accelerators
from serving.settings import ServingSettings
from serving.spec import EngineSpec, ModelSpec, read_spec

DEMO = read_spec("daemun-demo")
RUNNING, FAILED = ApplicationStatus.RUNNING, ApplicationStatus.DEPLOY_FAILED


class FakeServe:
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.apps: dict[str, Application] = {}

    def run(self, model: str, app: Application) -> None:
        self.asked.append(f"run {model}")
        self.apps[model] = app

    def end(self, model: str) -> None:
        self.asked.append(f"end {model}")
        del self.apps[model]

    def version(self, model: str) -> str:
        return str(self.apps[model]._bound_deployment._version)

    def config(self, model: str) -> Any:
        return self.apps[model]._bound_deployment._deployment_config


class Run:
    """Applications with the demo model and others like it."""

    def __init__(self, accelerators: Accelerators | None = None) -> None:
        self.serve, self.said = FakeServe(), list[str]()
        self.applications = Applications(self.serve, accelerators, self.said.append)

    def go_over_to(self, *specs: ModelSpec, **settings: Any) -> list[str]:
        """What Serve is asked for now."""
        before = len(self.serve.asked)
        models = [spec.id for spec in specs]
        self.applications.go_over_to(ServingSettings.model_validate({"models": models} | settings), specs)
        return self.serve.asked[before:]

    def become(self, **status: ApplicationStatus) -> list[str]:
        """What is asked for once Serve says that the models are so."""
        before = len(self.serve.asked)
        told = {
            name: ApplicationStatusOverview(status=one, message="", last_deployed_time_s=0.0, deployments={})
            for name, one in status.items()
        }
        list(self.applications.look(told))
        return self.serve.asked[before:]


def model(name: str, accelerator: float = 1.0, **engine: Any) -> ModelSpec:
    return ModelSpec.model_validate(DEMO.model_dump() | {"id": name, "accelerator": accelerator, "engine": EngineSpec(**engine)})


def test_only_what_has_changed_is_rolled_out() -> None:
    run = Run()
    assert run.go_over_to(model("a"), model("b")) == ["run a", "run b"]
    assert run.go_over_to(model("a"), model("b")) == []
    assert run.said[2:] == ["nothing has changed for the models"]
    assert run.go_over_to(model("a"), model("b", max_num_seqs=8)) == ["run b"]
    assert run.said[3:] == ["b: a new version, now 1 of Exaone4ForCausalLM"]


def test_models_come_and_go() -> None:
    run = Run()
    run.go_over_to(model("a"), model("b"))
    assert run.go_over_to(model("b"), model("c")) == ["end a", "run c"]


def test_replicas_that_are_told_nothing_new_are_of_the_same_version() -> None:
    """So that Serve starts no others: for more of them, for a new price, for another number of calls while draining."""
    run = Run()
    run.go_over_to(model("a"))
    version = run.serve.version("a")
    assert run.go_over_to(model("a"), replicas={"a": 2}) == ["run a"]
    assert run.serve.version("a") == version
    assert run.serve.config("a").num_replicas == 2
    run.go_over_to(model("a", max_num_seqs=8))
    assert run.serve.version("a") != version


def test_new_replicas_start_before_old_ones_end() -> None:
    run = Run()
    run.go_over_to(model("a"))
    assert run.serve.config("a").max_surge_percent == 25


@pytest.mark.parametrize(("part", "surge"), [(0.5, 25), (0.6, 0)])
def test_where_no_accelerator_has_room_for_both_the_old_one_ends_first(part: float, surge: int) -> None:
    run = Run(Accelerators(1, 2.0))
    run.go_over_to(model("a", part))
    assert run.serve.config("a").max_surge_percent == surge


def test_a_model_without_room_is_not_asked_for_until_there_is_some() -> None:
    """Ray would give it the place that a replica leaves to its own successor."""
    run = Run(Accelerators(1, 2.0))
    assert run.go_over_to(model("a", 0.5), model("b", 0.4)) == ["run a", "run b"]
    assert run.go_over_to(model("c", 0.3), model("a", 0.5, max_num_seqs=8), model("b", 0.4)) == ["run a"]
    assert "c: 1 of its 1 replicas must wait: each needs 0.3 of an accelerator, and 0.10 of 1 is left" in run.said
    assert run.go_over_to(model("c", 0.3), model("a", 0.5, max_num_seqs=8)) == ["end b", "run c"]


def test_of_several_replicas_those_run_that_have_room() -> None:
    run = Run(Accelerators(1, 2.0))
    run.go_over_to(model("a", 0.4), replicas={"a": 3})
    assert run.serve.config("a").num_replicas == 2
    assert "a: 1 of its 3 replicas must wait: each needs 0.4 of an accelerator, and 0.20 of 1 is left" in run.said


def test_what_a_failed_model_leaves_is_the_next_ones() -> None:
    run = Run(Accelerators(1, 2.0))
    run.go_over_to(model("a", 0.5))
    run.become(a=RUNNING)
    run.go_over_to(model("a", 0.5), model("b", 0.5), model("c", 0.5))
    (there,) = run.serve.apps.keys() - {"a"}
    (waits,) = {"b", "c"} - {there}
    assert run.become(**{"a": RUNNING, there: FAILED}) == [f"end {there}", f"run {waits}"]


def test_a_version_that_does_not_start_is_taken_back() -> None:
    run = Run()
    run.go_over_to(model("a"))
    version = run.serve.version("a")
    assert run.become(a=RUNNING) == []
    run.go_over_to(model("a", max_num_seqs=8))
    assert run.become(a=FAILED) == ["run a"]
    assert run.serve.version("a") == version
    assert any("the one before stays" in line for line in run.said)
    assert run.go_over_to(model("a", max_num_seqs=8)) == ["run a"], "the operator may try again"


def test_a_new_model_that_does_not_start_ends_no_other() -> None:
    run = Run()
    run.go_over_to(model("a"))
    run.become(a=RUNNING)
    run.go_over_to(model("a"), model("b"))
    assert run.become(a=RUNNING, b=FAILED) == ["end b"]
    assert run.become(a=RUNNING, b=FAILED) == [], "it is said once"


def test_at_the_first_start_a_model_that_does_not_start_is_the_end() -> None:
    run = Run()
    run.go_over_to(model("a"))
    with pytest.raises(CannotStart, match="a cannot be started"):
        run.become(a=FAILED)


def test_settings_that_make_no_sense_change_nothing() -> None:
    run = Run()
    run.go_over_to(model("a"))
    with pytest.raises(ValueError, match="demand_url"):
        run.go_over_to(model("b"), model("a"), autoscaling={"enabled": True})
    assert run.serve.asked == ["run a"]
    assert run.go_over_to(model("a")) == []


def test_what_the_cluster_was_started_with_changes_at_the_next_start() -> None:
    before, after = ServingSettings(), ServingSettings(dashboard_port=9000, drain_s=7)
    assert changes_at_next_start(before, after) == ["dashboard_port"]


def test_ray_has_processors_for_a_reload_too() -> None:
    assert most_cpus([DEMO], ServingSettings()) == 2.0
    assert most_cpus([DEMO], ServingSettings(replicas={"daemun-demo": 8})) == 10.0
    assert most_cpus([DEMO], ServingSettings(surge_percent=0)) == 1.0
