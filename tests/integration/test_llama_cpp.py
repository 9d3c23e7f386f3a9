"""A static fleet of llama.cpp's server, under a name of our own. It has no /health and tells no counts in streams.

Runs where LLAMA_CPP_PYTHON names a Python that has `llama-cpp-python[server]` and `gguf`. That is a C++ build of ten minutes
and more, so that `make test` does not do it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import openai
import pytest

from gateway.adapters import sqlite, sqlite_tenants
from gateway.adapters.system_clock import SystemClock
from gateway.settings import GatewaySettings, QueueSettings, StaticFleet
from tests.e2e.stack import free_ports, until
from tests.integration.gateway.conftest import _gateway_thread
from tests.integration.test_static_fleet import entries_of, says

PYTHON = os.environ.get("LLAMA_CPP_PYTHON")
SERVER = Path(__file__).parent / "llama_cpp_server.py"
START_S = 60.0

pytestmark = pytest.mark.skipif(not PYTHON, reason="LLAMA_CPP_PYTHON is not set")


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    port = free_ports(1)[0]
    with (tmp_path / "server.txt").open("ab") as out:
        process = subprocess.Popen([str(PYTHON), SERVER, tmp_path / "tiny.gguf", str(port)], stdout=out, stderr=out)
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


def test_llama_cpp_is_found_asked_by_its_own_name_and_counted(url: str, tmp_path: Path) -> None:
    fleet = StaticFleet(kind="static", urls=(url,), models={"our-tiny": str(tmp_path / "tiny.gguf")})
    settings = GatewaySettings(fleets=(fleet,), look_s=0.1, queue=QueueSettings(cold_patience_s=1))
    with _gateway_thread(settings, tmp_path) as port:
        gateway = f"http://127.0.0.1:{port}"
        until(lambda: httpx.get(f"{gateway}/health/ready").status_code == 200, START_S, "llama.cpp's server is ready")
        with closing(sqlite.connect(sqlite.store_path(tmp_path))) as connection:
            key, _ = sqlite_tenants.create_key(connection, SystemClock(), tenant="anna", project="llama")
        with openai.OpenAI(base_url=f"{gateway}/v1", api_key=key, max_retries=0) as client:
            assert [model.id for model in client.models.list()] == ["our-tiny"]
            whole = client.chat.completions.create(model="our-tiny", messages=says("안녕?"), max_tokens=12)
            chunks = list(client.chat.completions.create(model="our-tiny", messages=says("안녕?"), max_tokens=12, stream=True))
            assert whole.usage is not None
            assert chunks[-1].choices[0].finish_reason in ("length", "stop")
            streamed, asked = entries_of("anna", tmp_path, 2)
    assert (asked.prompt_tokens, asked.completion_tokens) == (whole.usage.prompt_tokens, whole.usage.completion_tokens)
    said = sum(bool(chunk.choices[0].delta.content) for chunk in chunks)
    assert (streamed.completion_tokens, streamed.outcome, streamed.model) == (said, "completed", "our-tiny")
    assert streamed.prompt_tokens > 0
