"""2,000 replicas and who calls them. Pure: numbers in, a scenario out.

The traffic is that of models that think before they answer: 1,500 tokens of question and 9,000 of answer in the mean, at some 30
tokens a second for each call, so five minutes a call. What a simulated second costs depends on how many calls come in it, hardly
on how long they are: engines are not stepped through token by token.
"""

from __future__ import annotations

from serving.simulator.scenario import Scenario

MODELS, REPLICAS_EACH = 40, 50
PROMPT_TOKENS, OUTPUT_TOKENS = 1500, 9000
SPEED = 0.2  # of the engine's figures: a card a fifth as fast as an H100, or a model five times as large


def fleet(calls_per_s: float, duration_s: float, seed: int) -> Scenario:
    """40 models of 50 replicas each, which is what each keeps; 200 tenants; limits, waiting rooms and autoscaling as ever."""
    names = [f"model-{number:02}" for number in range(1, MODELS + 1)]
    return Scenario.model_validate(
        {
            "name": "two-thousand-replicas",
            "seed": seed,
            "duration_s": duration_s,
            "sample_s": 10.0,
            "gpus": [{"name": "node", "kind": "H100", "nodes": MODELS * REPLICAS_EACH // 8, "gpus_per_node": 8}],
            "models": [
                {
                    "name": name,
                    "engine": "h100-8b",
                    "replicas": {"least": REPLICAS_EACH, "most": REPLICAS_EACH},
                    "runs_on": [{"kind": "H100", "speed": SPEED}],
                }
                for name in names
            ],
            "tenants": [
                {"name": "paid", "tier": "paid", "count": 100, "limits": {"requests_per_minute": 6000}},
                {"name": "free", "tier": "free", "count": 100, "comes_again": True},
            ],
            "traffic": [
                {
                    "kind": "poisson",
                    "model": name,
                    "per_s": calls_per_s / MODELS,
                    "prompt_tokens": {"mean": PROMPT_TOKENS, "most": 8000},
                    "output_tokens": {"mean": OUTPUT_TOKENS, "most": 24_000},
                }
                for name in names
            ],
            "autoscaling": {"every_s": 5.0},
        }
    )
