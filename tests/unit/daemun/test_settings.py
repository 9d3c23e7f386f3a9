"""Settings: defaults, file, variables, and what a wrong one is told."""

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from daemun.settings import Settings, SettingsError, load, variables

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _nothing_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in variables():
        monkeypatch.delenv(name, raising=False)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load(path)
    return str(caught.value)


def test_without_a_file_the_defaults_hold() -> None:
    assert load().gateway.port == 8080


def test_the_shipped_file_says_exactly_the_defaults() -> None:
    assert load(ROOT / "daemun.yaml") == load()


def test_the_shipped_file_shows_every_key_with_a_comment() -> None:
    text = (ROOT / "daemun.yaml").read_text(encoding="utf-8")
    assert keys_of(yaml.safe_load(text)) == keys_of(Settings().model_dump())
    uncommented = [line for line in text.splitlines() if line.strip() and not line.rstrip().endswith(":") and "#" not in line]
    assert [line for line in uncommented if line.split(":")[0].strip() not in {"port", "- kind"}] == []


def keys_of(tree: object, above: str = "") -> set[str]:
    if isinstance(tree, dict):
        return {name for key, value in tree.items() for name in {f"{above}{key}"} | keys_of(value, f"{above}{key}.")}
    if isinstance(tree, list | tuple):
        return {name for value in tree for name in keys_of(value, above)}
    return set()


def test_a_variable_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAEMUN_GATEWAY__PORT", "9001")
    settings = load(write(tmp_path, "gateway: {port: 9000, host: 127.0.0.9}"))
    assert (settings.gateway.port, settings.gateway.host) == (9001, "127.0.0.9")


def test_the_file_may_be_named_by_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAEMUN_CONFIG", str(write(tmp_path, "gateway: {port: 9000}")))
    assert load().gateway.port == 9000


@pytest.mark.parametrize("name", ["port", "host"])
def test_settings_cannot_be_changed(name: str) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(load().gateway, name, 1)


def test_every_model_of_the_settings_is_frozen_and_refuses_unknown_keys() -> None:
    seen: list[type[BaseModel]] = [Settings]
    for model in seen:
        assert model.model_config.get("frozen") is True
        assert model.model_config.get("extra") == "forbid"
        seen += [
            f.annotation
            for f in model.model_fields.values()
            if isinstance(f.annotation, type) and issubclass(f.annotation, BaseModel)
        ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gatway: {}", "no setting gatway (did you mean gateway?)"),
        ("gateway: {prot: 1}", "no setting gateway.prot (did you mean gateway.port?)"),
        ("gateway: {queue: {patience: 1}}", "did you mean gateway.queue.patience_s?"),
        ("gateway: {fleets: [{kind: ray, ulr: x}]}", "ulr (did you mean"),
        ("gateway: {port: 70000}", "gateway.port is 70000, but input should be less than or equal to 65535"),
        ("gateway: {workers: 4}", "gateway: 4 workers need limits.redis, the Redis that holds their limits together."),
        ("gateway: {limits: {without_redis: share}}", "gateway.limits: share needs most_workers."),
        ("gateway: {log_level: loud}", "'debug', 'info', 'warning' or 'error'"),
        ("gateway: [", "is not valid YAML at line 1"),
        ("- gateway", "must hold keys"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    message = refusal(write(tmp_path, text))
    assert said in message
    assert "\n" not in message


def test_a_missing_file_is_refused_when_it_was_named(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("asked", ["no", "must"])
def test_variables_that_are_read_before_any_setting_are_known(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setenv("DAEMUN_COMPILED", asked)
    assert load(None).gateway.port == 8080


def test_an_unknown_variable_is_refused_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAEMUN_GATEWAY__PROT", "1")
    assert "did you mean DAEMUN_GATEWAY__PORT?" in refusal()


def test_a_variable_that_should_be_json_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAEMUN_SERVING__MODELS", "daemun-demo")
    assert "written as JSON" in refusal()


def test_an_address_with_a_password_is_never_shown(tmp_path: Path) -> None:
    settings = load(write(tmp_path, "gateway: {store: {url: 'postgresql://a:s3cret@b/c'}}"))
    assert settings.gateway.store.address == "postgresql://a:s3cret@b/c"
    assert "s3cret" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert "s3cret" not in refusal(write(tmp_path, "gateway: {store: {url: ['postgresql://a:s3cret@b/c']}}"))


@pytest.mark.parametrize(
    ("rollouts", "told"),
    [
        ("[{model: a, candidate: a}]", "a cannot be its own candidate"),
        ("[{model: a, candidate: b, canary: 1.5}]", "rollouts.0.canary is 1.5, but input should be less than or equal to 1"),
        ("[{model: a, candidate: b, shadow: -0.1}]", "rollouts.0.shadow is -0.1, but input should be greater than or equal to 0"),
        ("[{model: a, candidate: b, canary: 0.7, shadow: 0.4}]", "0.7 and 0.4 are too much: together they may be 1 at most"),
        ("[{model: a, candidate: b}, {model: a, candidate: c}]", "rollouts has a more than once; try one candidate"),
        ("[{model: a, candidate: b}, {model: b, candidate: c}]", "b is a candidate in rollouts and has one of its own; end one"),
        ("[{model: a, candidate: nobody}]", "rollouts names nobody, which no fleet has; there are a, b, c"),
        ("[{model: nobody, candidate: b}]", "rollouts names nobody, which no fleet has; there are a, b, c"),
        ("[{model: a, candidate: b, share: 0.1}]", "there is no setting gateway.rollouts.0.share"),
        ("[{model: a, candidate: b, sticky: call}]", "gateway.rollouts.0.sticky is 'call', but"),
    ],
)
def test_rollouts_that_cannot_be_are_told_why(tmp_path: Path, rollouts: str, told: str) -> None:
    fleets = "[{kind: static, urls: [http://10.0.0.7:8000], models: [a, b, c]}]"
    said = refusal(write(tmp_path, f"gateway: {{fleets: {fleets}, rollouts: {rollouts}}}"))
    assert told in said
    assert "\n" not in said


def test_models_of_rollouts_are_taken_on_trust_where_a_fleet_may_have_any(tmp_path: Path) -> None:
    settings = load(write(tmp_path, "gateway: {rollouts: [{model: a, candidate: b, canary: 0.1}]}"))
    (rollout,) = settings.gateway.rollouts
    assert (rollout.canary, rollout.shadow, rollout.sticky) == (0.1, 0.0, "conversation")
