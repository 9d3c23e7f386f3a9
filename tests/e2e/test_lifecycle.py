"""Whatever ends first ends everything, and nothing of ours is left: processes, ports, Ray's directories."""

import signal
import sys
from pathlib import Path

import pytest

from tests.e2e.stack import END_S, Stack, stack, until

RAY_IS_UP_S = 60.0


def assert_nothing_is_left(ended: Stack, within_s: float = 10.0) -> None:
    until(lambda: not ended.left_behind(), within_s, lambda: f"nothing left, but: {ended.left_behind()}\n{ended.output}")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_starting_ends_everything(tmp_path: Path, signum: signal.Signals) -> None:
    with stack(tmp_path) as starting:
        starting.wait_for("Ray Serve: starting", RAY_IS_UP_S)
        assert starting.end(signum) == 128 + signum
        assert_nothing_is_left(starting)


@pytest.mark.parametrize("part", [("daemun", "serve"), ("daemun", "gateway"), ("serving.cluster",), ("raylet",), ("gcs_server",)])
def test_the_crash_of_a_part_ends_everything(tmp_path: Path, part: tuple[str, ...]) -> None:
    with stack(tmp_path) as starting:
        starting.wait_for("Ray Serve: starting", RAY_IS_UP_S)
        starting.find(*part).kill()
        assert starting.process.wait(END_S) == 1
        assert "ending everything" in starting.output
        assert "Traceback" not in starting.output
        assert_nothing_is_left(starting)


def test_the_crash_of_the_supervisor_ends_everything(tmp_path: Path) -> None:
    with stack(tmp_path) as starting:
        starting.wait_for("Ray Serve: starting", RAY_IS_UP_S)
        starting.processes()
        starting.process.kill()
        starting.process.wait()
        assert_nothing_is_left(starting, END_S)


def test_a_command_behind_the_dashes_runs_and_its_exit_code_is_ours(tmp_path: Path) -> None:
    """The longest of them: a full start, a question, a full end."""
    ask = "import openai, sys; print(openai.OpenAI().models.list().data[0].id); sys.exit(7)"
    with stack(tmp_path, "--", sys.executable, "-c", ask) as running:
        assert running.process.wait(400) == 7, running.output
        assert "daemun-demo" in running.output
        assert_nothing_is_left(running)
