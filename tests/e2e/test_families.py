"""Every family of the catalogue that the pinned vLLM serves: a small random model of its architecture is loaded, served through
Ray Serve and the gateway, and streams. Families that read images are not here: vLLM's classes for them need torchvision, which
the CPU environment lacks (docs/catalog.md).

The models start side by side, in two rounds, because all at once would need more memory than a small machine has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
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


@pytest.fixture(scope="module", params=ROUNDS, ids=lambda families: "+".join(families))
def families(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One round of families behind one gateway."""
    names: tuple[str, ...] = request.param
    folder = tmp_path_factory.mktemp("families")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(_enlarged_catalogue(folder, names)), str(REPOSITORY)]))
        with stack(folder, SERVING__MODELS=json.dumps([f"random-{name}" for name in names])) as running:
            running.wait_until_ready(START_S * len(names))
            yield Served(running, names)


class Served:
    """A stack and the families in it."""

    def __init__(self, running: Stack, names: tuple[str, ...]) -> None:
        self.stack, self.names = running, names

    def answer(self, name: str, content: str) -> tuple[int, Any]:
        """Chunks of a streamed answer, and its usage."""
        with openai.OpenAI(base_url=f"{self.stack.url}/v1", api_key=self.stack.key, max_retries=0) as client:
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


def _enlarged_catalogue(folder: Path, names: tuple[str, ...]) -> Path:
    """A folder for Python's path with the package `serving` as it is, and the random models in its catalogue."""
    package = folder / "path" / "serving"
    catalog = package / "catalog"
    catalog.mkdir(parents=True)
    for original in (REPOSITORY / "serving").iterdir():
        if original.name not in ("catalog", "__pycache__"):
            (package / original.name).symlink_to(original)
    for entry in (REPOSITORY / "serving" / "catalog").glob("*.yaml"):
        (catalog / entry.name).symlink_to(entry)
    models = folder / "models"
    subprocess.run([sys.executable, "-m", "tests.e2e.random_model", str(models), *names], check=True, cwd=REPOSITORY)
    for name in names:
        _write_entry(catalog, name, models / name)
    return package.parent


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
    ModelSpec.model_validate(entry)
    (catalog / f"{entry['id']}.yaml").write_text(yaml.safe_dump(entry, allow_unicode=True), encoding="utf-8")
