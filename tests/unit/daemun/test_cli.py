"""The command line, in a folder of its own and without starting anything."""

import os
import re
import signal
import socket
from pathlib import Path

import pytest

from daemun import cli
from daemun.context import Context, administer
from daemun.settings import variables
from gateway.policy.tenancy import LIMITS
from serving.serve_process import announced


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


def test_a_key_for_all_models_is_not_for_one_named_so(run: Run) -> None:
    assert run("keys", "create", "--model", "all")[0] == 0
    assert [key.models for key in administer(Context().settings(), lambda admin: admin.keys())] == [None]


def test_a_revoked_key_is_listed_as_revoked_and_cannot_be_revoked_twice(run: Run) -> None:
    _, out, _ = run("keys", "create")
    key_id = out.split()[1]
    assert run("keys", "revoke", key_id)[0] == 0
    code, _, err = run("keys", "revoke", key_id)
    assert code == 1
    assert "revoked already, for good" in err


def test_a_keys_tier_is_no_higher_than_its_tenants(run: Run) -> None:
    run("tenants", "create", "school", "--tier", "free")
    code, _, err = run("keys", "create", "--tenant", "school", "--tier", "reserved")
    assert code == 1
    assert "no higher than its tenant's" in err
    assert run("keys", "create", "--tenant", "school", "--project", "quiz", "--tier", "batch")[0] == 0
    assert re.search(r"school +quiz +batch", run("keys", "list", "--tenant", "school")[1])


def test_tenants_are_made_shown_changed_and_deleted(run: Run) -> None:
    assert run("tenants", "create", "학교", "--weight", "2", "--model", "a", "--model", "b", "--fallback", "c")[0] == 0
    assert run("tenants", "project", "create", "학교", "숙제", "--model", "a")[0] == 0
    assert run("tenants", "change", "학교", "--tier", "batch", "--model", "all")[0] == 0
    _, shown, _ = run("tenants", "show", "학교")
    assert re.search(r"tier +batch, weight 2", shown)
    assert re.search(r"models +all\n", shown)
    assert re.search(r"fallbacks +c\n", shown)
    assert re.search(r"숙제 +a +none +0", shown)
    assert run("tenants", "disable", "학교")[0] == 0
    assert "disabled" in run("tenants", "list")[1]
    assert run("tenants", "enable", "학교")[0] == 0
    assert "disabled" not in run("tenants", "list")[1]
    assert run("tenants", "delete", "학교")[0] == 0
    assert "학교" not in run("tenants", "list")[1]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("tenants", "create", "a/b"), "has no slash"),
        (("tenants", "create", "x" * 65), "at most 64 characters"),
        (("tenants", "create", "a", "--weight", "0"), "a number above 0"),
        (
            ("tenants", "change", "nobody", "--tier", "free"),
            "There is no tenant nobody. 'daemun tenants list' shows all of them.",
        ),
        (("tenants", "project", "change", "default", "nothing"), "'daemun tenants show default' shows those that it has"),
        (("keys", "revoke", "key_none"), "There is no key key_none. 'daemun keys list' shows all of them."),
        (("limits", "set", "--tenant", "nobody", "--concurrent", "1"), "There is no tenant nobody"),
        (("limits", "set", "--concurrent", "1"), "Name one level"),
        (("limits", "set", "--tenant", "default"), "Name a limit to set"),
        (("limits", "set", "--tenant", "default", "--concurrent", "9" * 20), "a limit is a whole number"),
        (("limits", "show", "--key", "key_none", "--tenant", "default"), "Name one level"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(run: Run, command: tuple[str, ...], said: str) -> None:
    run("keys", "create")
    code, _, err = run(*command)
    assert code == 1
    assert said in err
    assert err.count("\n") == 1


def test_limits_are_set_shown_and_removed_level_by_level(run: Run) -> None:
    key_id = run("keys", "create", "--tenant", "school", "--project", "quiz")[1].split()[1]
    assert run("limits", "set", "--tenant", "school", "--requests-per-minute", "60", "--tokens-per-day", "1000000")[0] == 0
    assert run("limits", "set", "--tenant", "school", "--project", "quiz", "--krw-per-month", "50000")[0] == 0
    assert run("limits", "set", "--key", key_id, "--concurrent", "2")[0] == 0
    _, shown, _ = run("limits", "show")
    assert re.search(r"^tenant school +requests per minute 60, tokens per day 1,000,000 *$", shown, re.MULTILINE)
    assert re.search(r"^project quiz of school +krw per month 50,000 *$", shown, re.MULTILINE)
    assert re.search(rf"^key {key_id} +concurrent 2 *$", shown, re.MULTILINE)
    _, said, _ = run("limits", "set", "--tenant", "school", "--tokens-per-day", "none")
    assert said == "tenant school: requests per minute 60\n"
    assert run("limits", "show", "--key", key_id)[1] == f"key {key_id}: concurrent 2\n"


def test_every_limit_can_be_set(run: Run) -> None:
    _, out, _ = run("limits", "set", "--help")
    assert all(f"--{name.replace('_', '-')}" in out for name in LIMITS)


def test_a_number_that_is_none_is_refused_with_what_it_may_be(run: Run) -> None:
    code, _, err = run("limits", "set", "--tenant", "a", "--concurrent", "many")
    assert code == 2
    assert "neither a whole number nor 'none'" in err


@pytest.mark.parametrize("command", ["tenants", "keys", "limits"])
def test_help_teaches_with_examples(run: Run, command: str) -> None:
    _, out, _ = run(command, "--help")
    assert len(re.findall(rf"daemun {command} \w+", out)) >= 3


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
    assert all(command in out for command in ("up", "gateway", "serve", "reload", "tenants", "keys", "limits", "usage", "doctor"))


def test_reload_reaches_the_daemun_serve_of_the_same_state_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAEMUN_STATE_DIR", str(tmp_path))
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda signum, frame: heard.append(signum))
    try:
        with announced(tmp_path):
            code, out, _ = run("reload")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (code, heard) == (0, [signal.SIGUSR1])
    assert str(os.getpid()) in out


def test_reload_without_a_running_daemun_serve_says_so(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAEMUN_STATE_DIR", str(tmp_path))
    code, _, err = run("reload")
    assert code == 1
    assert f"No daemun serve runs with {tmp_path}" in err


def test_reload_of_what_could_not_start_reaches_nobody(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAEMUN_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("DAEMUN_SERVING__CATALOG_DIR", str(tmp_path))
    (tmp_path / "daemun-demo.yaml").write_text("id: daemun-demo\n")
    with announced(tmp_path):  # at SIGUSR1 this process would end
        code, _, err = run("reload")
    assert code == 1
    assert "Model daemun-demo: daemun-demo.yaml in the catalogue" in err
