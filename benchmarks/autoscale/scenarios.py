"""The hours for which the policies are compared: one model, a few replicas of it, and a demand that is hard in one way each.

The engine is that of an 8-billion-parameter model on an H100, slowed to an eighth: about a model of 70 billion parameters. A
replica takes two minutes to start. Seeds change who comes when, never the shape.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from serving.simulator.scenario import Scenario

TARGET_S = 4.0
MODEL = "model-70b"
_SIZES = {
    "prompt_tokens": {"mean": 1000, "spread": 0.8, "most": 4000},
    "output_tokens": {"mean": 300, "spread": 0.7, "most": 2000},
}
_HOUR_S = 3600


def scenarios(trace: Path | None) -> list[Scenario]:
    """`trace`: a real hour in Azure's or BurstGPT's format; None: there is none."""
    made = [
        _scenario("steady", "Calls by chance, always as many.", [_calls("poisson", per_s=4.0)], start=4),
        _scenario("bursts", "As many calls in bursts.", [_calls("gamma", per_s=4.0, variation=6.0)], start=4),
        _scenario("evening", "A Korean evening and its end, from 21 to 1.", [_calls("day", per_s=1.75)], start=3)
        | {"clock_s": 21 * _HOUR_S, "duration_s": 4 * _HOUR_S},
        _scenario(
            "step",
            "Four times as many for half an hour, without notice.",
            [_calls("poisson", per_s=2.0), _calls("poisson", per_s=6.0, begin_s=1200, end_s=3000)],
            start=2,
        ),
        _scenario(
            "waves",
            "A lesson begins every half hour, for ten minutes.",
            [_calls("poisson", per_s=2.0)]
            + [_calls("poisson", per_s=4.0, begin_s=begin, end_s=begin + 600) for begin in range(600, 7200, 1800)],
            start=2,
        )
        | {"duration_s": 2 * _HOUR_S},
        _scenario(
            "launch",
            "1,500 users within five minutes, who come again when told, on top of calls as always.",
            [_calls("poisson", per_s=2.0), _calls("surge", users=1500, within_s=300, begin_s=900)],
            start=2,
        ),
        _scenario("losses", "All but one machine may leave; each does every 90 minutes.", [_calls("poisson", per_s=4.0)], start=4)
        | {"gpus": [_machines("own", 1), _machines("cafe", 13) | {"volatile": True, "leaves": {"every_s": 5400}}]},
    ]
    if trace is not None:
        made.append(
            _scenario(
                "azure",
                "A real hour of a conversation service, all its calls.",
                [{"kind": "trace", "path": str(trace)}],
                start=3,
            )
        )
    return [Scenario.model_validate(each) for each in made]


def _scenario(name: str, about: str, traffic: list[dict[str, Any]], start: int) -> dict[str, Any]:
    return {
        "name": name,
        "about": about,
        "duration_s": _HOUR_S,
        "sample_s": 10,
        "target_first_token_s": TARGET_S,
        "models": [
            {
                "name": MODEL,
                "engine": "h100-8b",
                "cold_start_s": 120,
                "replicas": {"least": 1, "most": 12, "start": start},
                "runs_on": [{"kind": "GPU", "speed": 0.125}],
            }
        ],
        "traffic": traffic,
    }


def _machines(name: str, nodes: int) -> dict[str, Any]:
    return {"name": name, "kind": "GPU", "nodes": nodes, "gpus_per_node": 1}


def _calls(kind: str, **rest: float) -> dict[str, Any]:
    return {"kind": kind, **_SIZES, **rest}
