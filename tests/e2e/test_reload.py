"""Two models on one (simulated) accelerator, a third that waits for room, and reloads under load in which no call fails.

One story on one stack, because each start takes a minute: what a reload does depends on what was before.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest
import yaml

from serving.spec import read_spec
from tests.e2e.stack import START_S, Stack, stack, until

A, B, C = "demo-a", "demo-b", "demo-c"
PARTS = {A: 0.4, B: 0.5, C: 0.2}
MEMORY_GIB = 1.0
RELOAD_S = 240.0
CALL_S = 150.0
CALLERS = 4


class Operator:
    """Who writes daemun.yaml and the catalogue, and says `daemun reload`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.catalog = folder, folder / "catalog"
        self.catalog.mkdir()

    def write(self, *models: str, **engine: object) -> None:
        """The settings, with these models; `engine` changes how A runs."""
        (self.folder / "daemun.yaml").write_text(yaml.safe_dump({"serving": {"models": list(models)}}))
        for model, part in PARTS.items():
            demo = read_spec("daemun-demo")
            entry = demo.model_dump(mode="json", exclude_unset=True) | {"id": model, "source": demo.weights, "accelerator": part}
            entry["cpus"] = 0.1
            entry["engine"] |= engine if model == A else {}
            (self.catalog / f"{model}.yaml").write_text(yaml.safe_dump(entry, allow_unicode=True), encoding="utf-8")

    def reload(self, running: Stack) -> None:
        command = [str(Path(sys.executable).with_name("daemun")), "reload"]
        subprocess.run(command, check=True, env=running.environment, cwd=self.folder, timeout=60)


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Operator:
    made = Operator(tmp_path_factory.mktemp("reload"))
    made.write(A, B)
    return made


@pytest.fixture(scope="module")
def shared(operator: Operator) -> Iterator[Stack]:
    settings = {
        "SERVING__CATALOG_DIR": str(operator.catalog),
        "SERVING__SIMULATED_ACCELERATORS": "1",
        "SERVING__SIMULATED_MEMORY_GIB": str(MEMORY_GIB),
    }
    with stack(operator.folder, **settings) as running:
        running.wait_until_ready(2 * START_S)
        yield running


@contextmanager
def load(running: Stack, model: str) -> Iterator[list[tuple[str, float]]]:
    """A steady load of streams and whole answers; yields of each call "ok" or what was wrong, and how long it took."""
    outcomes: list[tuple[str, float]] = []
    enough = threading.Event()

    def call(client: openai.OpenAI, is_stream: bool) -> str:
        body = {"model": model, "messages": [{"role": "user", "content": "대문이 뭐예요?"}], "max_tokens": 150}
        if not is_stream:
            answer = client.chat.completions.create(**body, extra_body={"ignore_eos": True})  # type: ignore[call-overload]
            return "ok" if answer.usage.completion_tokens == 150 else f"whole answer: {answer}"
        wish = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = list(client.chat.completions.create(**body, **wish, extra_body={"ignore_eos": True}))  # type: ignore[call-overload]
        return "ok" if chunks[-1].usage and chunks[-1].usage.completion_tokens == 150 else f"stream: {chunks[-1]}"

    def call_on_and_on(first: bool) -> None:
        is_stream = first
        with openai.OpenAI(base_url=f"{running.url}/v1", api_key=running.key, max_retries=0, timeout=CALL_S) as client:
            while not enough.is_set():
                began = time.monotonic()
                try:
                    said = call(client, is_stream)
                except openai.OpenAIError as problem:
                    said = repr(problem)
                outcomes.append((said, time.monotonic() - began))
                is_stream = not is_stream

    threads = [threading.Thread(target=call_on_and_on, args=(number % 2 == 0,)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: len(outcomes) >= 2 * CALLERS, 60, "calls before anything changes")
        yield outcomes
        done = len(outcomes)
        until(lambda: len(outcomes) >= done + 2 * CALLERS, 60, "calls after it has changed")
    finally:
        enough.set()
        for thread in threads:
            thread.join()


def reloaded(running: Stack, operator: Operator, watch: Callable[[set[str]], None] = lambda names: None) -> float:
    """Ask for it, and wait until A has none but new replicas. Returns how long that took."""
    before = running.replica_names(A)
    operator.reload(running)

    def done() -> bool:
        now = running.replica_names(A)
        watch(now)
        return bool(now) and not now & before

    return until(done, RELOAD_S, lambda: running.output)


def answers(running: Stack, model: str) -> bool:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=running.key, max_retries=0, timeout=CALL_S) as client:
        return bool(client.completions.create(model=model, prompt="안녕", max_tokens=5).choices[0].text)


def cache_blocks(running: Stack, model: str) -> int:
    """Of the model's one replica, as its engine says."""
    (address,) = [one for one in running.replicas() if one.endswith(f"/{model}")]
    found = re.search(r'vllm:cache_config_info\{.*?num_gpu_blocks="(\d+)"', httpx.get(f"{address}/metrics").text)
    assert found
    return int(found[1])


def say(what: str, took_s: float, outcomes: list[tuple[str, float]]) -> None:
    longest_s = max(wait_s for _, wait_s in outcomes)
    print(f"\n{what}: {took_s:.0f} s, {dict(Counter(said for said, _ in outcomes))}, longest call {longest_s:.1f} s")  # noqa: T201


def test_models_on_parts_of_an_accelerator_are_reloaded_under_load(shared: Stack, operator: Operator) -> None:
    assert answers(shared, A)
    assert answers(shared, B)
    assert cache_blocks(shared, A) / cache_blocks(shared, B) == pytest.approx(PARTS[A] / PARTS[B], rel=0.01)

    # No room for a second replica of A, so the old one ends before the new one starts; nor for C, which must not take its place.
    operator.write(A, B, C, max_num_seqs=32)
    with load(shared, A) as outcomes:
        took_s = reloaded(shared, operator)
    say("one after the other", took_s, outcomes)
    assert {said for said, _ in outcomes} == {"ok"}
    assert "demo-c: 1 of its 1 replicas must wait: each needs 0.2 of an accelerator, and 0.10 of 1 is left" in shared.output
    assert shared.replica_names(C) == set()

    # B goes, and C gets its turn.
    operator.write(A, C, max_num_seqs=32)
    operator.reload(shared)
    until(lambda: bool(shared.replica_names(C)), RELOAD_S, lambda: shared.output)
    assert answers(shared, C)

    # Now there is room for both versions of A at once.
    listed: list[int] = []
    operator.write(A, C, max_num_seqs=16)
    with load(shared, A) as outcomes:
        took_s = reloaded(shared, operator, lambda names: listed.append(len(names)))
    say("side by side", took_s, outcomes)
    assert {said for said, _ in outcomes} == {"ok"}
    assert min(listed) >= 1, "there is a replica at all times"
    assert "demo-a: deploying (1 running, 1 starting)" in shared.output

    # A version that cannot start is taken back; what runs goes on.
    before = shared.replica_names(A)
    operator.write(A, C, extra_args={"kv_cache_dtype": "no-such-type"})
    with load(shared, A) as outcomes:
        operator.reload(shared)
        shared.wait_for("demo-a: the new version cannot be started, the one before stays", RELOAD_S)
    assert {said for said, _ in outcomes} == {"ok"}
    assert shared.replica_names(A) == before

    # And so is a model that vLLM could not parse for: it is refused before anything happens.
    entry = yaml.safe_load((operator.catalog / f"{A}.yaml").read_text(encoding="utf-8"))
    entry["parsers"] = {"tools": "hermse", "source": "this test"}
    (operator.catalog / f"{A}.yaml").write_text(yaml.safe_dump(entry, allow_unicode=True), encoding="utf-8")
    with pytest.raises(subprocess.CalledProcessError):
        operator.reload(shared)
    assert json.loads(httpx.get(f"{shared.url}/health/ready").text)["waiting_for"] == []
