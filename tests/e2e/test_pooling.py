"""Embeddings, scores and reranking: a second kind of real vLLM server, reached through a gateway whose fleet is a static list.

The demo's weights serve as an embedding model. What it says means little; that it arrives and is counted is the point.
"""

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.stack import START_S, free_ports, until

MODEL = "demo-embeddings"
WEIGHTS = Path(__file__).parents[2] / "serving/demo/model"
TEXTS = ["대문이 뭐예요?", "GPU가 왜 부족해요?", "오늘 점심 뭐 먹을까요?"]
ENGINE = {  # as serving.environment and serving.replica have it, for a server of its own
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_CONFIGURE_LOGGING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "TORCH_COMPILE_DISABLE": "1",
}


@dataclass(frozen=True)
class Pooling:
    """A running gateway with its key; `engine_url` is what is behind it."""

    url: str
    engine_url: str
    key: str
    store: Path

    def entry(self, request_id: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        def there() -> bool:
            with closing(sqlite3.connect(self.store)) as store:
                store.row_factory = sqlite3.Row
                found[:] = [dict(row) for row in store.execute("SELECT * FROM ledger WHERE id = ?", (request_id,))]
            return bool(found)

        until(there, 5, f"a ledger entry for {request_id}")
        return found[0]


@contextmanager
def process(log: Path, *command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Ended when the block ends."""
    with log.open("w") as out:
        running = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=out, stderr=out, cwd=log.parent, env=os.environ | environment
        )
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(30)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def answers(url: str, running: subprocess.Popen[bytes], log: Path) -> bool:
    assert running.poll() is None, log.read_text()
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def pooling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pooling]:
    folder = tmp_path_factory.mktemp("pooling")
    engine_port, gateway_port = free_ports(2)
    engine_url, url = f"http://127.0.0.1:{engine_port}", f"http://127.0.0.1:{gateway_port}"
    settings = {
        "DAEMUN_STATE_DIR": str(folder / "state"),
        "DAEMUN_GATEWAY__PORT": str(gateway_port),
        "DAEMUN_GATEWAY__FLEETS": json.dumps([{"kind": "static", "urls": [engine_url]}]),
    }
    engine = ["vllm.entrypoints.openai.api_server", "--model", str(WEIGHTS), "--served-model-name", MODEL, "--enforce-eager"]
    engine += ["--runner", "pooling", "--convert", "embed", "--host", "127.0.0.1", "--port", str(engine_port)]
    with ExitStack() as running:
        server = running.enter_context(process(folder / "engine.txt", *engine, **ENGINE))
        gateway = running.enter_context(process(folder / "gateway.txt", "daemun", "gateway", **settings))
        until(lambda: answers(f"{engine_url}/health", server, folder / "engine.txt"), START_S, "the engine")
        until(lambda: answers(f"{url}/health/ready", gateway, folder / "gateway.txt"), 30, "the gateway ready")
        made = subprocess.run(
            [sys.executable, "-m", "daemun", "keys", "create"],
            capture_output=True,
            text=True,
            check=True,
            cwd=folder,
            env=os.environ | settings,
        )
        key = re.search(r"dm-[\w-]{43}", made.stdout)
        assert key, made.stdout
        yield Pooling(url, engine_url, key[0], folder / "state/daemun.sqlite3")


@pytest.fixture
def client(pooling: Pooling) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{pooling.url}/v1", api_key=pooling.key, max_retries=0) as made:
        yield made


def post(pooling: Pooling, path: str, **fields: Any) -> httpx.Response:
    return httpx.post(pooling.url + path, json={"model": MODEL, **fields}, headers={"Authorization": f"Bearer {pooling.key}"})


def test_embeddings_come_as_the_official_client_asks_for_them(pooling: Pooling, client: openai.OpenAI) -> None:
    """It asks for base64 unless told otherwise, and hands out numbers either way."""
    packed = client.embeddings.with_raw_response.create(model=MODEL, input=TEXTS)
    answer = packed.parse()
    plain = client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
    assert [item.index for item in answer.data] == [0, 1, 2]
    for one, other in zip(answer.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-5)
        assert sum(number * number for number in one.embedding) == pytest.approx(1, abs=1e-2)
    entry = pooling.entry(packed.headers["x-request-id"])
    assert (entry["endpoint"], entry["outcome"], entry["model"], entry["stream"]) == ("/v1/embeddings", "completed", MODEL, 0)
    assert (entry["prompt_tokens"], entry["completion_tokens"]) == (answer.usage.prompt_tokens, 0)
    assert answer.usage.prompt_tokens > len(TEXTS)


async def test_async_client_embeds_token_ids_too(pooling: Pooling) -> None:
    tokens = post(pooling, "/tokenize", prompt=TEXTS[0]).json()["tokens"]
    async with openai.AsyncOpenAI(base_url=f"{pooling.url}/v1", api_key=pooling.key, max_retries=0) as client:
        of_text = await client.embeddings.create(model=MODEL, input=TEXTS[0], encoding_format="float")
        of_tokens = await client.embeddings.create(model=MODEL, input=tokens, encoding_format="float")
    assert of_tokens.data[0].embedding == pytest.approx(of_text.data[0].embedding, abs=1e-2)


@pytest.mark.parametrize("path", ["/v1/score", "/score"])
def test_pairs_are_scored_and_counted(pooling: Pooling, path: str) -> None:
    answer = post(pooling, path, queries=TEXTS[0], documents=TEXTS)
    scores = [item["score"] for item in answer.json()["data"]]
    assert scores[0] == max(scores) == pytest.approx(1, abs=1e-2)
    entry = pooling.entry(answer.headers["x-request-id"])
    assert (entry["endpoint"], entry["prompt_tokens"]) == (path, answer.json()["usage"]["prompt_tokens"])
    assert entry["prompt_tokens"] > 0


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_documents_are_reranked_and_counted(pooling: Pooling, path: str) -> None:
    answer = post(pooling, path, query=TEXTS[1], documents=TEXTS, top_n=2)
    results = answer.json()["results"]
    assert [len(results), results[0]["index"], results[0]["document"]["text"]] == [2, 1, TEXTS[1]]
    entry = pooling.entry(answer.headers["x-request-id"])
    assert (entry["endpoint"], entry["prompt_tokens"]) == (path, answer.json()["usage"]["prompt_tokens"])
    assert entry["prompt_tokens"] > 0


def test_bodies_are_the_engines_own_bytes(pooling: Pooling) -> None:
    sent = {"model": MODEL, "input": TEXTS, "encoding_format": "float"}
    direct, through = httpx.post(f"{pooling.engine_url}/v1/embeddings", json=sent), post(pooling, "/v1/embeddings", **sent)
    assert through.headers["content-type"] == direct.headers["content-type"]
    strange = re.compile(rb'"id":"[^"]*"|"created":\d+|-?\d+\.\d+(e-\d+)?')
    assert strange.sub(b"", through.content) == strange.sub(b"", direct.content)


def test_formats_without_counts_and_the_operators_fields_are_refused(pooling: Pooling, client: openai.OpenAI) -> None:
    for fields, param in (({"encoding_format": "bytes_only"}, "encoding_format"), ({"priority": 1}, "priority")):
        with pytest.raises(openai.BadRequestError) as caught:
            client.embeddings.create(model=MODEL, input=TEXTS, extra_body=fields)
        assert (caught.value.param, caught.value.code) == (param, "invalid_request")


def test_what_an_embedding_model_does_not_do_is_said(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="does not offer /v1/chat/completions"):
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": TEXTS[0]}])


def test_what_the_engine_refuses_names_the_field(pooling: Pooling) -> None:
    error = post(pooling, "/rerank", query=TEXTS[0], documents=TEXTS, top_n=-1).json()["error"]
    assert (error["param"], error["code"]) == ("top_n", "invalid_request")
