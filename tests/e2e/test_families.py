"""Every family of the catalogue that the pinned vLLM serves: a small random model of its architecture is loaded, served through
Ray Serve and the gateway, and streams. Families that read images are not here: vLLM's classes for them need torchvision, which
the CPU environment lacks (docs/catalog.md).

The models start side by side, in two rounds, because all at once would need more memory than a small machine has.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from serving.spec import ModelSpec
from tests.e2e.stack import START_S, Stack, stack

REPOSITORY = Path(__file__).parents[2]
ROUNDS = (
    ("exaone-3.5", "k-exaone", "solar-open", "ax-4.0"),
    ("solar", "ax-k1", "kanana-2", "hyperclovax-think"),
)
# As in the catalogue's entry: vLLM reads a list that transformers' configuration does not have.
EXTRA: dict[str, dict[str, Any]] = {"k-exaone": {"hf_overrides": {"sliding_windows": [64, 64, 64, None]}}}
TOKENS = 12
THINKS, CALLS = "solar", "kanana-2"  # with the parsers that such models have; around thoughts are tokens of the tokenizer
PARSERS = {THINKS: {"reasoning": "deepseek_r1"}, CALLS: {"tools": "hermes"}}
END_OF_THOUGHTS = 3
WEATHER: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module", params=ROUNDS, ids=lambda families: "+".join(families))
def families(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One round of families behind one gateway."""
    names: tuple[str, ...] = request.param
    folder = tmp_path_factory.mktemp("families")
    catalog = _catalogue_of(folder, names)
    models = json.dumps([f"random-{name}" for name in names])
    with stack(folder, SERVING__CATALOG_DIR=str(catalog), SERVING__MODELS=models) as running:
        running.wait_until_ready(START_S * len(names))
        yield Served(running, names)


class Served:
    """A stack and the families in it."""

    def __init__(self, running: Stack, names: tuple[str, ...]) -> None:
        self.stack, self.names = running, names

    @contextmanager
    def client(self) -> Iterator[openai.OpenAI]:
        with openai.OpenAI(base_url=f"{self.stack.url}/v1", api_key=self.stack.key, max_retries=0) as made:
            yield made

    def answer(self, name: str, content: str) -> tuple[int, Any]:
        """Chunks of a streamed answer, and its usage."""
        with self.client() as client:
            stream = client.chat.completions.create(
                model=f"random-{name}",
                messages=[{"role": "user", "content": content}],
                max_tokens=TOKENS,
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
                extra_body={"ignore_eos": True},
            )
            chunks = list(stream)
        return len(chunks), chunks[-1].usage


def test_every_family_streams_through_the_gateway(families: Served) -> None:
    for name in families.names:
        chunks, usage = families.answer(name, "안녕하세요?")
        assert usage.completion_tokens == TOKENS, name
        assert chunks >= 4, name


def test_the_catalogues_parsers_take_thoughts_and_tool_calls_out_of_the_text(families: Served) -> None:
    """Whatever a random model writes before the end of thoughts is a thought; a call of a tool is put into its mouth."""
    if THINKS not in families.names:
        pytest.skip("its models are in the other round")
    call = '<tool_call>{"name": "weather", "arguments": {"city": "Seoul"}}</tool_call>'
    with families.client() as client:
        thinks = client.chat.completions.create(
            model=f"random-{THINKS}",
            messages=[{"role": "user", "content": "안녕하세요?"}],
            max_tokens=TOKENS,
            logit_bias={str(END_OF_THOUGHTS): -100},
            extra_body={"ignore_eos": True},
        )
        calls = client.chat.completions.create(
            model=f"random-{CALLS}",
            messages=[{"role": "user", "content": "날씨 어때요?"}],
            max_tokens=200,
            tools=[WEATHER],
            extra_body={"structured_outputs": {"choice": [call]}},
        )
    message = thinks.choices[0].message
    assert message.content is None
    assert message.model_dump()["reasoning"]
    assert thinks.usage is not None
    assert thinks.usage.completion_tokens == TOKENS
    assert calls.choices[0].finish_reason == "tool_calls"
    (called,) = calls.choices[0].message.tool_calls or []
    assert called.type == "function"
    assert (called.function.name, json.loads(called.function.arguments)) == ("weather", {"city": "Seoul"})


def _catalogue_of(folder: Path, names: tuple[str, ...]) -> Path:
    """A folder with the random models' entries."""
    catalog, models = folder / "catalog", folder / "models"
    catalog.mkdir()
    subprocess.run([sys.executable, "-m", "tests.e2e.random_model", str(models), *names], check=True, cwd=REPOSITORY)
    for name in names:
        _write_entry(catalog, name, models / name)
    return catalog


def _write_entry(catalog: Path, name: str, weights: Path) -> None:
    config = json.loads((weights / "config.json").read_text(encoding="utf-8"))
    entry = {
        "id": f"random-{name}",
        "title": f"Random {name}",
        "source": str(weights),
        "licence": "none",
        "architecture": config["architectures"][0],
        "context_tokens": 1024,
        "description": {"en": "Random weights.", "ko": "무작위 가중치입니다."},
        "cpus": 0.1,
        "engine": {
            "dtype": "bfloat16",
            "max_num_seqs": 4,
            "kv_cache_gib": 0.1,
            "enforce_eager": True,
            "extra_args": {"trust_remote_code": True} | EXTRA.get(name, {}),
        },
    }
    if name in PARSERS:
        entry["parsers"] = PARSERS[name] | {"source": "this test"}
    ModelSpec.model_validate(entry)
    (catalog / f"{entry['id']}.yaml").write_text(yaml.safe_dump(entry, allow_unicode=True), encoding="utf-8")
