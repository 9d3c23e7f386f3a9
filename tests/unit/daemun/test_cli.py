"""The command line, in a folder of its own and without starting anything."""

import re
import socket
from pathlib import Path

import pytest

from daemun import cli
from daemun.settings import variables


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in variables():
        monkeypatch.delenv(name, raising=False)
    for setting in ("GATEWAY__PORT", "SERVING__DASHBOARD_PORT", "SERVING__PROXY_PORT"):
        monkeypatch.setenv(f"DAEMUN_{setting}", str(free_port()))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "Run":
    return Run(monkeypatch, capsys)


class Run:
    """Calls the entry point as the shell would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self._monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as ended:
            cli.main(list(arguments))
        out, err = self._capsys.readouterr()
        return int(ended.value.code or 0), out, err


def test_a_key_is_shown_once_and_listed_without_its_secret(run: Run) -> None:
    code, out, _ = run("keys", "create", "--tenant", "school", "--project", "homework", "--model", "daemun-demo")
    secret = re.search(r"^key\s+(dm-\S{43})$", out, re.MULTILINE)
    assert code == 0
    assert secret is not None
    _, listed, _ = run("keys", "list")
    assert "school" in listed
    assert "daemun-demo" in listed
    assert secret[1] not in listed


def test_a_revoked_key_is_listed_as_revoked_and_cannot_be_revoked_twice(run: Run) -> None:
    _, out, _ = run("keys", "create")
    key_id = out.split()[1]
    assert run("keys", "revoke", key_id)[0] == 0
    code, _, err = run("keys", "revoke", key_id)
    assert code == 1
    assert "daemun keys list" in err


def test_usage_of_a_new_installation_is_an_empty_table(run: Run) -> None:
    code, out, _ = run("usage")
    assert code == 0
    assert "prompt" in out


@pytest.mark.parametrize("command", ["up", "gateway", "serve"])
def test_a_busy_port_is_said_before_anything_starts(run: Run, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        setting = "SERVING__PROXY_PORT" if command == "serve" else "GATEWAY__PORT"
        monkeypatch.setenv(f"DAEMUN_{setting}", str(port))
        code, _, err = run(command)
    assert code == 1
    assert f"Port {port}: it is in use" in err
    assert f"DAEMUN_{setting}" in err
    assert "Traceback" not in err


def test_an_unknown_model_is_said_before_anything_starts(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAEMUN_SERVING__MODELS", '["daemun-dmeo"]')
    code, _, err = run("up")
    assert code == 1
    assert "did you mean daemun-demo?" in err


def test_a_wrong_setting_is_one_sentence(run: Run, tmp_path: Path) -> None:
    (tmp_path / "daemun.yaml").write_text("gateway: {prot: 1}")
    code, _, err = run("usage")
    assert code == 1
    assert "did you mean gateway.port?" in err
    assert err.count("\n") == 1


def test_a_state_folder_that_cannot_be_is_one_sentence(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DAEMUN_STATE_DIR", str(tmp_path / "file" / "state"))
    code, _, err = run("keys", "list")
    assert code == 1
    assert "Set state_dir" in err


def test_help_names_every_command(run: Run) -> None:
    _, out, _ = run("--help")
    assert all(command in out for command in ("up", "gateway", "serve", "keys", "usage", "doctor"))
