"""Small scenarios for tests: a fast engine of few places, and a run that looks at itself at each moment."""

from __future__ import annotations

from typing import Any

from serving.simulator.run import Run
from serving.simulator.scenario import Scenario


def scenario(**changes: Any) -> Scenario:
    """One model of two replicas that are never more or fewer, on GPUs of one kind, and calls by chance."""
    said: dict[str, Any] = {
        "name": "small",
        "duration_s": 120.0,
        "sample_s": 10.0,
        "gpus": [{"name": "node", "kind": "H100", "nodes": 2, "gpus_per_node": 2}],
        "models": [
            {
                "name": "m",
                "engine": "h100-8b",
                "cold_start_s": 10.0,
                "replicas": {"least": 2, "most": 2},
                "runs_on": [{"kind": "H100"}],
            }
        ],
        "traffic": [{"kind": "poisson", "per_s": 5.0, "output_tokens": {"mean": 100, "spread": 0.5, "most": 400}}],
    }
    return Scenario.model_validate(said | changes)


def model(**changes: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"name": "m", "engine": "h100-8b", "cold_start_s": 10.0, "replicas": {"least": 1, "most": 4}}
    return said | changes


class WatchedRun(Run):
    """Holds what must always hold, and looks at it whenever the autoscaler is asked."""

    def _decide(self, of: object) -> None:
        self.check()
        super()._decide(of)
        self.check()

    def check(self) -> None:
        facts = self.scenario.facts()
        size = {node.id: 100 * node.gpus for node in facts.nodes}
        away = self.fleet._away
        for node, used in self.fleet.in_use().items():
            assert used <= size[node]
            assert node not in away
        for service in self.fleet.services.values():
            for replica in service.ready:
                assert replica.engine.running <= replica.places
                assert replica.engine.running + replica.engine.waiting == len(replica.calls)
            assert service.room.waiting == len(service._waiting)
            assert service.room.running == len(service._running)
            on_engines = sum(len(one.calls) for one in self.fleet._live.values() if one.model == service.model)
            assert on_engines + len(service._resuming) == len(service._running)
