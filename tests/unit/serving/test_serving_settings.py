"""What `daemun serve` can be told, and what Ray, Serve and vLLM are told in turn."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from serving.environment import cluster_environment
from serving.settings import ServingSettings

RUN = Path("/run/daemun-1")
STATE = Path("/state")


def test_defaults_serve_the_demo_model_on_loopback_with_a_token() -> None:
    settings = ServingSettings()
    assert settings.models == ("daemun-demo",)
    assert settings.host == settings.dashboard_host == "127.0.0.1"
    assert settings.token_auth


def test_unknown_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="dashbord_port"):
        ServingSettings.model_validate({"dashbord_port": 1})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"replica_port_min": 31001}, "above"),
        ({"models": ("daemun-demo", "daemun-demo")}, "twice"),
        ({"replicas": {"other": 1}}, "other"),
        ({"temp_root": Path("/a/very/long/path/for/a/socket")}, "Unix socket"),
        ({"host": "0.0.0.0"}, "one address"),  # noqa: S104 - that it is refused is the point
        ({"models": ()}, "at least 1"),
    ],
)
def test_contradiction_is_refused_with_its_reason(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ServingSettings.model_validate(wrong)


def test_settings_survive_the_way_to_the_cluster_process() -> None:
    settings = ServingSettings(replicas={"daemun-demo": 2}, drain_s=7)
    assert ServingSettings.model_validate_json(settings.model_dump_json()) == settings


def test_every_setting_is_described() -> None:
    assert all(field.description for field in ServingSettings.model_fields.values())


def test_cluster_never_joins_the_one_around_it() -> None:
    environment = cluster_environment(ServingSettings(), STATE, RUN, {"RAY_ADDRESS": "10.0.0.1:6379", "PATH": "/bin"})
    assert "RAY_ADDRESS" not in environment
    assert environment["PATH"] == "/bin"


def test_cluster_requires_the_token_of_this_state_directory() -> None:
    environment = cluster_environment(ServingSettings(), STATE, RUN, {"RAY_AUTH_TOKEN": "another"})
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN_PATH"] == "/state/ray-token"
    assert "RAY_AUTH_TOKEN" not in environment


def test_token_can_be_turned_off() -> None:
    environment = cluster_environment(ServingSettings(token_auth=False), STATE, RUN, {})
    assert environment["RAY_AUTH_MODE"] == "disabled"
    assert "RAY_AUTH_TOKEN_PATH" not in environment


def test_python_may_keep_compiled_modules_even_where_it_was_told_not_to() -> None:
    assert "PYTHONDONTWRITEBYTECODE" not in cluster_environment(ServingSettings(), STATE, RUN, {"PYTHONDONTWRITEBYTECODE": "1"})


@pytest.mark.parametrize(("host", "everywhere"), [("127.0.0.1", "0"), ("::1", "0"), ("10.0.0.5", "1")])
def test_ray_stays_on_loopback_where_the_host_is(host: str, everywhere: str) -> None:
    assert cluster_environment(ServingSettings(host=host), STATE, RUN, {})["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == everywhere
