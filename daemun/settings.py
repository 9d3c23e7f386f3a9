"""daemun.yaml and DAEMUN_* variables, read once into frozen settings.

A variable is a key's path in capitals, its parts joined by two underscores: `DAEMUN_GATEWAY__PORT=8081` is `gateway.port`.
Variables win over the file, the file wins over the defaults. A key or variable that does not exist is an error that names
the nearest one that does.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from gateway import compiled
from gateway.settings import GatewaySettings
from serving.settings import ServingSettings

PREFIX = "DAEMUN_"
FILE_VARIABLE = "DAEMUN_CONFIG"
DEFAULT_FILE = Path("daemun.yaml")


class SettingsError(Exception):
    """The settings cannot be used; the message is one sentence with the remedy."""


class Settings(BaseSettings):
    """All of daemun's settings."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__", env_ignore_empty=False
    )

    state_dir: Path = Field(Path(".daemun/state"), description="Folder for keys, ledger and tokens; made on first use.")
    gateway: GatewaySettings = GatewaySettings()
    serving: ServingSettings = ServingSettings()

    def demand_url(self) -> str | None:
        """Where the autoscaler asks: as set, else the gateway of these settings, if this machine is near to where it listens."""
        if self.serving.autoscaling.demand_url is not None:
            return self.serving.autoscaling.demand_url
        near = {"127.0.0.1": "127.0.0.1", "localhost": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}  # noqa: S104 - compared
        host = near.get(self.gateway.host)
        return f"http://{host}:{self.gateway.port}/internal/demand" if host else None

    def serving_here(self) -> ServingSettings:
        """The settings of `daemun serve` beside the gateway of these settings."""
        scaling = self.serving.autoscaling.model_copy(update={"demand_url": self.demand_url()})
        return self.serving.model_copy(update={"autoscaling": scaling})

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings


def load(path: Path | None = None) -> Settings:
    """Read the settings. `path` None means $DAEMUN_CONFIG, else daemun.yaml here if there is one, else defaults alone.

    Raises SettingsError.
    """
    _check_variables(os.environ)
    source = path or (Path(os.environ[FILE_VARIABLE]) if FILE_VARIABLE in os.environ else None)
    values = _read_file(source or DEFAULT_FILE, must_exist=source is not None)
    origin = str(source or DEFAULT_FILE)
    try:
        return Settings(**values)
    except ValidationError as problem:
        raise SettingsError(_explain(problem, origin)) from problem
    except (ValueError, TypeError) as problem:  # pydantic-settings: a variable that should be JSON is not
        raise SettingsError(f"A {PREFIX}* variable cannot be read: {problem}. Lists and tables are written as JSON.") from problem


def variables() -> list[str]:
    """Every variable that is understood."""
    return [FILE_VARIABLE, compiled.ASKED, *(PREFIX + "__".join(path).upper() for path in _paths(Settings))]


def _read_file(path: Path, *, must_exist: bool) -> dict[str, Any]:
    if not must_exist and not path.exists():
        return {}
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as problem:
        raise SettingsError(f"The settings file {path} cannot be read ({problem}). Name another with --config.") from problem
    except yaml.YAMLError as problem:
        where = getattr(problem, "problem_mark", None)
        line = f"line {where.line + 1}" if where else "its text"
        raise SettingsError(f"{path} is not valid YAML at {line}: {getattr(problem, 'problem', problem)}.") from problem
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise SettingsError(f"{path} must hold keys such as 'gateway:', not {type(values).__name__}.")
    return values


def _check_variables(environment: Iterable[str]) -> None:
    known = set(variables())
    for name in environment:
        if name.startswith(PREFIX) and name not in known:
            raise SettingsError(f"There is no setting for the variable {name}{_nearest(name, known)}.")


def _paths(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        yield (*above, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _paths(field.annotation, (*above, name))


def _explain(problem: ValidationError, origin: str) -> str:
    first = problem.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        siblings = {".".join([*path[:-1], name]) for name in _fields_at(path[:-1])}
        return f"{origin}: there is no setting {key}{_nearest(key, siblings)}."
    if first["type"] == "value_error":  # of a section, whose keys do not fit each other
        return f"{origin} or the environment: {key}: {first['ctx']['error']}."
    shown = "not usable" if key in _secrets() else repr(first["input"])
    return f"{origin} or the environment: {key} is {shown}, but {_lower(first['msg'])}."


def _secrets() -> set[str]:
    """The keys whose values are never shown."""
    return {".".join(path) for path in _paths(Settings) if SecretStr in get_args(_annotation(path))}


def _annotation(path: tuple[str, ...]) -> Any:
    found: Any = Settings
    for name in path:
        found = found.model_fields[name].annotation
    return found


def _fields_at(path: list[str]) -> list[str]:
    """The names of the keys below `path`, through lists and alternatives."""
    models: list[type[BaseModel]] = [Settings]
    for part in path:
        below = [model.model_fields[part].annotation for model in models if part in model.model_fields]
        models = [inner for annotation in below for inner in _models_in(annotation)] or models
    return [name for model in models for name in model.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if get_origin(annotation) is None:
        return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _nearest(name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else f"; the known ones are {', '.join(sorted(known))}"


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:].rstrip(".")
