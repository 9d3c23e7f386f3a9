"""`daemun models`: what the catalogue has, everything it knows of a model, and whether some GPUs can carry it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from daemun.context import print_table
from daemun.plan_shown import plan_as_json, plan_as_text
from daemun.problem import Problem
from serving.card import QuantFormat
from serving.planning.gpu import KINDS, Gpus, UnknownGpu, parse_gpus
from serving.planning.memory import WEIGHT_BYTES
from serving.planning.plan import Question, make_plan
from serving.shape import UNKNOWN, NotKnown, Shape
from serving.spec import ModelSpec, SpecError, folders, read_all, read_spec

app = typer.Typer(
    no_args_is_help=True,
    help=(
        "The catalogue of models: what they are, what their licences forbid, and which GPUs they need.\n\n"
        "`daemun models list`  all of them\n\n"
        "`daemun models show exaone-4.0-32b`  everything that is known of one, with the source of every figure\n\n"
        "`daemun models plan exaone-4.0-32b --gpu RTX4090:4 --quant int4`  does it fit, how, and how fast at most"
    ),
)

Model = Annotated[str, typer.Argument(help="The model's id in the catalogue, such as exaone-4.0-32b.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def _read(context: typer.Context, model: str) -> ModelSpec:
    try:
        return read_spec(model, *_folders(context))
    except SpecError as error:
        raise Problem(_sentence(error)) from error


def _folders(context: typer.Context) -> tuple[Path, ...]:
    return folders(context.obj.settings().serving.catalog_dir)


@app.command("list")
def list_models(
    context: typer.Context,
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="The tables of docs/catalog.md.")] = False,
) -> None:
    """The catalogue: id, family, parameters, licence in a word, and whether the pinned vLLM serves it.

    Entries that cannot be read are named after the others, and the exit code is then 1.
    """
    specs, wrong = read_all(*_folders(context))
    if markdown:
        typer.echo(f"{models_table(specs)}\n\n{gpus_table()}")
    elif as_json:
        typer.echo(json.dumps([_summary(spec) for spec in specs], ensure_ascii=False, indent=2))
    else:
        _print_models(specs)
    for error in wrong:
        typer.echo(f"daemun: {error}", err=True)
    raise typer.Exit(1 if wrong else 0)


def _print_models(specs: Iterable[ModelSpec]) -> None:
    table = Table("id", "family", "parameters", "context", "licence", "images", "served", box=None, pad_edge=False)
    for spec in specs:
        context = f"{spec.context_tokens:,}"
        served = "yes" if spec.support.served else f"no: {_reason(spec)}"
        if spec.support.served and not spec.support.cpu:
            served = f"on GPUs: {_reason(spec)}"
        images = "yes" if spec.images else ""
        table.add_row(spec.id, spec.family, parameters(spec.shape), context, _use(spec), images, served)
    print_table(table)


def models_table(specs: Iterable[ModelSpec]) -> str:
    """The catalogue for docs/catalog.md."""
    rows = ["| id | family | parameters | context | licence | served | runs on (weights) |", "|---|---|---|---|---|---|---|"]
    for spec in specs:
        gpus = ", ".join(f"{one.gpus.replace(':', ' × ')} ({one.quant})" for one in spec.suggestions) or "not reckoned"
        served = ("yes" if spec.support.cpu else "on GPUs") if spec.support.served else "no"
        licence = f"{spec.licence}: {_use(spec)}"
        row = (f"`{spec.id}`", spec.family, parameters(spec.shape), f"{spec.context_tokens:,}", licence, served, gpus)
        rows.append(f"| {' | '.join(map(str, row))} |")
    return "\n".join(rows)


def gpus_table() -> str:
    """The GPU kinds for docs/catalog.md."""
    rows = ["| kind | memory | bandwidth | bf16 | fp8 | int8 | int4 | W | source |", "|---|---|---|---|---|---|---|---|---|"]
    for kind in KINDS.values():
        rates = (f"{rate:g}" if rate else "–" for rate in (kind.bf16, kind.fp8, kind.int8, kind.int4))
        row = (kind.name, f"{kind.memory_gib:.1f} GiB", f"{kind.bandwidth_gb_s:,} GB/s", *rates, str(kind.watts), kind.source)
        rows.append(f"| {' | '.join(row)} |")
    return "\n".join(rows)


@app.command()
def show(context: typer.Context, model: Model, as_json: AsJson = False) -> None:
    """Everything that the catalogue knows of a model, and where it knows it from."""
    spec = _read(context, model)
    if as_json:
        typer.echo(json.dumps(spec.model_dump(mode="json"), ensure_ascii=False, indent=2))
        return
    console = _console()
    for name, text in _card(spec):
        console.print(f"{name:<14} {text}", markup=False)
    if spec.shape is not None:
        console.print()
        for line in _figures(spec.shape):
            console.print(line, markup=False)


@app.command()
def plan(
    invocation: typer.Context,
    model: Model,
    gpu: Annotated[str, typer.Option(help="A kind of GPU and how many of it, such as RTX4090:4.", metavar="KIND:NUMBER")],
    quant: Annotated[str, typer.Option(help=f"Format of the weights: {', '.join(WEIGHT_BYTES)}.")] = "bf16",
    context: Annotated[
        int | None, typer.Option(min=1, help="Tokens of one call; the model's served length if not given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Whether these GPUs can carry the model, spread how, with room for how many tokens, and how fast at most."""
    spec = _read(invocation, model)
    if spec.shape is None:
        raise Problem(f"The catalogue has no figures of {spec.id}.")
    asked = Question(spec.shape, _gpus(gpu), _format(quant), _context(spec, context))
    try:
        answer = make_plan(asked)
    except NotKnown as gap:
        raise Problem(f"The weights of {spec.id} in {quant} cannot be weighed: {gap}.") from gap
    if as_json:
        typer.echo(json.dumps(plan_as_json(spec, answer), ensure_ascii=False, indent=2))
    else:
        _console().print(plan_as_text(spec, answer), markup=False)
    raise typer.Exit(0 if answer.chosen else 1)


def _gpus(text: str) -> Gpus:
    try:
        return parse_gpus(text)
    except UnknownGpu as error:
        raise Problem(_sentence(error)) from error


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[0].upper() + text[1:] + ("" if text.endswith("?") else ".")


def _format(text: str) -> QuantFormat:
    for known in WEIGHT_BYTES:
        if known == text:
            return known
    raise Problem(f"There is no format {text!r} of weights; there are {', '.join(WEIGHT_BYTES)}.")


def _context(spec: ModelSpec, context: int | None) -> int:
    if context is not None and context > spec.context_tokens:
        raise Problem(f"{spec.id} has a context of {spec.context_tokens:,} tokens; {context:,} are more.")
    return context or spec.max_model_len


def parameters(shape: Shape | None) -> str:
    """Such as 236B, 23B active."""
    if shape is None or shape.parameters == UNKNOWN:
        return UNKNOWN
    active = "" if shape.active_parameters in (None, UNKNOWN) else f", {_billions(shape.need('active_parameters'))} active"
    return _billions(shape.need("parameters")) + active


def _billions(count: int) -> str:
    return f"{count / 1e9:.3g}B" if count >= 10**8 else f"{count / 1e6:.3g}M"


def _use(spec: ModelSpec) -> str:
    return spec.terms.use if spec.terms else UNKNOWN


def _reason(spec: ModelSpec) -> str:
    return spec.support.reason.en if spec.support.reason else ""


def _summary(spec: ModelSpec) -> dict[str, Any]:
    shape = spec.shape
    return {
        "id": spec.id,
        "family": spec.family,
        "parameters": shape.parameters if shape else UNKNOWN,
        "active_parameters": shape.active_parameters if shape else None,
        "context_tokens": spec.context_tokens,
        "licence": spec.licence,
        "use": _use(spec),
        "images": spec.images,
        "served": spec.support.served,
        "cpu": spec.support.served and spec.support.cpu,
        "reason": _reason(spec) or None,
    }


def _card(spec: ModelSpec) -> Iterable[tuple[str, str]]:
    yield "model", f"{spec.title} ({spec.id})"
    yield "", spec.description.en
    yield "", spec.description.ko
    yield "family", f"{spec.family}, {spec.developer}"
    yield "weights", spec.source
    yield "parameters", parameters(spec.shape)
    yield "context", f"{spec.context_tokens:,} tokens"
    yield "licence", f"{spec.licence} ({_use(spec)})"
    if spec.terms:
        yield from (("  forbids", spec.terms.forbids.en), ("  금지", spec.terms.forbids.ko), ("  source", spec.terms.source))
    yield "architecture", spec.architecture + (", takes images" if spec.images else "")
    where = "" if spec.support.cpu else ", on GPUs only"
    yield "served", f"by the pinned vLLM{where}" if spec.support.served else "not by the pinned vLLM"
    if spec.support.reason:
        yield from (("", spec.support.reason.en), ("", spec.support.reason.ko))
    if spec.parsers:
        yield "reasoning", f"parser {spec.parsers.reasoning or 'not known'}"
        yield "tools", f"parser {spec.parsers.tools or 'not known'} ({spec.parsers.source})"
    if spec.chat_template:
        yield from (("chat template", spec.chat_template.en), ("", spec.chat_template.ko))
    for variant in spec.variants:
        yield "quantised", f"{variant.format}: {variant.name}" + ("" if variant.official else " (by others)")
    draft = spec.draft
    yield "speculation", f"{draft.method} ({draft.source})" if draft else "not known"
    for one in spec.suggestions:
        spread = f"tensor parallel {one.tensor_parallel}, pipeline parallel {one.pipeline_parallel}"
        context = f"{one.context_tokens or spec.max_model_len:,} tokens"
        yield "runs on", f"{one.gpus} in {one.quant}: {spread}, {context} ({one.source or 'our arithmetic'})"
    yield "price", f"{spec.price.prompt_krw} / {spec.price.completion_krw} KRW a million tokens" if spec.price else "not known"
    yield "energy", f"{spec.energy.completion_wh} Wh / 1,000 tokens ({spec.energy.source})" if spec.energy else "not known"


def _figures(shape: Shape) -> Iterable[str]:
    """Every figure with its source, or the reason why it is not known."""
    for name, value in shape.figures():
        source = shape.source_of(name)
        if value == UNKNOWN:
            reason = shape.unknown.get(name) or shape.unknown.get(name.partition(".")[0])
            yield f"{name:<26} {UNKNOWN:>16}  {reason}"
        elif source is not None:
            yield f"{name:<26} {_number(value):>16}  {'reckoned: ' if source.reckoned else ''}{source.where}"


def _number(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else f"{value:,}"
