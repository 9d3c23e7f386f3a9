"""Where in a YAML text something is wrong, and what was probably meant: from pydantic's report to one sentence.

Knows YAML and pydantic models, nothing of the catalogue.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterator, Sequence

import yaml
from pydantic import BaseModel, ValidationError

Location = Sequence[int | str]


def complaint(model: type[BaseModel], error: ValidationError, text: str) -> str:
    """The first thing that is wrong: its place, its line, and the nearest known key for one that is unknown."""
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")  # a mistyped key explains a missing one
    location = _in_text(first["loc"], text)
    where = ".".join(map(str, location)) or "the entry"
    line = f" (line {line_of(text, location)})" if location else ""
    if first["type"] == "extra_forbidden":
        return f"{where}{line} is no key that daemun knows; {_hint(str(location[-1]), list(keys_at(model, location[:-1])))}"
    message = str(first["ctx"]["error"]) if first["type"] == "value_error" else str(first["msg"])
    if not location and (found := re.match(r"([a-z_]+(?:\.\w+)*)", message)):
        location = _in_text(tuple(int(part) if part.isdigit() else part for part in found[1].split(".")), text)
        if location:
            return f"line {line_of(text, location)}: {message}"
    return f"{where}{line}: {message}"


def line_of(text: str, location: Location) -> int:
    """The line of a key, counted from 1; that of the nearest group above it where it is not there."""
    node, line = yaml.compose(text, yaml.SafeLoader), 1
    for part in location:
        found = _child(node, part)
        if found is None:
            break
        key, node = found
        line = int(key.start_mark.line) + 1
    return line


def keys_at(model: type[BaseModel], location: Location) -> Iterator[str]:
    """The keys that a model knows at a place inside it."""
    models = [model]
    for part in location:
        inner = [one.model_fields[str(part)].annotation for one in models if str(part) in one.model_fields]
        models = [found for annotation in inner for found in _models_in(annotation)] or models
    for one in models:
        yield from one.model_fields


def _in_text(location: Location, text: str) -> list[int | str]:
    """The location without pydantic's own marks: names of union members, which no text has."""
    node, real = yaml.compose(text, yaml.SafeLoader), list[int | str]()
    for number, part in enumerate(location):
        found = _child(node, part)
        if found is None and number < len(location) - 1:
            continue
        real.append(part)
        node = found[1] if found else None
    return real


def _child(node: yaml.Node | None, part: int | str) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == str(part)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _models_in(inner)


def _hint(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {near[0]}?" if near else f"here it knows {', '.join(known)}"
