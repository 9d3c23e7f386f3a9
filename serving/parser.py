"""The parsers that the installed vLLM knows, by name, read from its source text: importing it would take eight seconds.

vLLM looks a parser up only when it has loaded the model, and then answers with a traceback or, for reasoning, at the first
request. Here a name is checked before anything starts.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

from serving.card import Parsers

Kind = Literal["reasoning", "tools"]
Known = Mapping[Kind, frozenset[str]]

_TABLES: dict[Kind, tuple[str, str]] = {
    "reasoning": ("reasoning/__init__.py", "_REASONING_PARSERS_TO_REGISTER"),
    "tools": ("tool_parsers/__init__.py", "_TOOL_PARSERS_TO_REGISTER"),
}


@cache
def known_parsers() -> Known:
    """Names by kind. A kind is missing where vLLM is not installed or keeps its table elsewhere: nothing is known of it then."""
    spec = importlib.util.find_spec("vllm")  # finds a top-level package without importing it
    if spec is None or spec.origin is None:
        return {}
    package = Path(spec.origin).parent
    found = {kind: _keys(package / file, table) for kind, (file, table) in _TABLES.items()}
    return {kind: names for kind, names in found.items() if names}


def unknown_parser(parsers: Parsers | None, known: Known) -> str | None:
    """What is wrong with a catalogue entry's parsers, as a sentence without its full stop; None if nothing is."""
    if parsers is None:
        return None
    named: tuple[tuple[Kind, str | None], ...] = (("reasoning", parsers.reasoning), ("tools", parsers.tools))
    for kind, name in named:
        if name is not None and kind in known and name not in known[kind]:
            near = difflib.get_close_matches(name, sorted(known[kind]), n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(known[kind]))}"
            return f"parsers.{kind}: the installed vLLM has no parser {name!r}; {hint}"
    return None


def _keys(file: Path, table: str) -> frozenset[str]:
    """The keys of a table of literals in a Python file; none where there is no such table."""
    if not file.is_file():
        return frozenset()
    for statement in ast.parse(file.read_text(encoding="utf-8")).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Dict(keys=keys)) if name == table:
                return frozenset(key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str))
    return frozenset()
