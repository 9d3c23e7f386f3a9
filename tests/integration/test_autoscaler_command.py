"""`daemun autoscaler` as an operator starts it, before a gateway that answers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from tests.e2e.stack import until
from tests.unit.serving.autoscaling.test_ray_policy import gateway, said

MODEL = "daemun-demo"


def command(folder: Path, **settings: str) -> subprocess.Popen[str]:
    environment = (
        os.environ | {"DAEMUN_STATE_DIR": str(folder)} | {f"DAEMUN_SERVING__{name}": value for name, value in settings.items()}
    )
    return subprocess.Popen(
        [Path(sys.executable).with_name("daemun"), "autoscaler", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment,
    )


def test_number_is_there_for_keda_until_sigterm(tmp_path: Path) -> None:
    answer = said(1_000_000.0).replace(b'"demo"', f'"{MODEL}"'.encode())
    scaled = {"AUTOSCALING__ENABLED": "true", "AUTOSCALING__MOST": json.dumps({MODEL: 7})}
    with gateway(answer) as demand_url, command(tmp_path, AUTOSCALING__DEMAND_URL=demand_url, **scaled) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"(http://127\.0\.0\.1:\d+)/metrics tells", process.stdout.readline())
            assert found
            told: dict[str, object] = {}

            def is_told() -> bool:
                try:
                    with urllib.request.urlopen(f"{found[1]}/desired/{MODEL}", timeout=5) as desired:
                        told.update(json.load(desired))
                except urllib.error.HTTPError as problem:
                    problem.close()
                return bool(told)

            until(is_told, 30, "a number")
            assert told["desired_replicas"] == 7
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert "stopped" in process.stdout.read()


def test_without_a_model_to_scale_it_says_what_to_set(tmp_path: Path) -> None:
    with command(tmp_path) as process:
        _, said_wrong = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "serving.autoscaling.enabled: true" in said_wrong
    assert "Traceback" not in said_wrong
