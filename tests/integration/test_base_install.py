"""The base install is the gateway alone: it works where neither torch nor ray nor vllm is."""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
START_S = 30.0


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment made by the script that images and `make run` use."""
    venv = tmp_path_factory.mktemp("base") / "venv"
    made = subprocess.run([ROOT / "scripts" / "setup", "gateway", venv, "--copy"], capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stdout + made.stderr
    return venv / "bin"


def test_no_engine_is_installed(base: Path) -> None:
    code = "import importlib.util as u; print([m for m in ('torch', 'ray', 'vllm', 'transformers') if u.find_spec(m)])"
    found = subprocess.run([base / "python", "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert found.stdout.strip() == "[]"


def test_every_command_teaches(base: Path, tmp_path: Path) -> None:
    for command in ("up", "gateway", "serve", "tenants", "keys", "limits", "usage", "doctor"):
        helped = subprocess.run([base / "daemun", command, "--help"], capture_output=True, text=True, cwd=tmp_path)
        assert helped.returncode == 0, helped.stderr
        assert len(helped.stdout.splitlines()) > 5


def test_serving_without_an_engine_says_what_to_install(base: Path, tmp_path: Path) -> None:
    refused = subprocess.run([base / "daemun", "serve"], capture_output=True, text=True, cwd=tmp_path)
    assert refused.returncode == 1
    assert "make run" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_gateway_runs_and_says_what_it_waits_for(base: Path, tmp_path: Path) -> None:
    port = free_port()
    nobody = free_port()
    settings = {
        "GATEWAY__PORT": str(port),
        "GATEWAY__FLEETS": f'[{{"kind":"static","urls":["http://127.0.0.1:{nobody}"],"models":["m"]}}]',
    }
    environment = os.environ | {f"DAEMUN_{name}": value for name, value in settings.items()}
    with subprocess.Popen([base / "daemun", "gateway"], cwd=tmp_path, env=environment) as gateway:
        try:
            assert "a ready replica of m" in not_ready(f"http://127.0.0.1:{port}/health/ready")
        finally:
            gateway.terminate()
        assert gateway.wait(10) == 0, "it shuts down in order"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def not_ready(url: str) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=2)
        except urllib.error.HTTPError as answer:
            with answer:
                text = answer.read().decode()
            if "a first model" not in text:
                return text
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"{url} did not answer within {START_S} s")
