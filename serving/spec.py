"""What daemun knows about a model before it is loaded: one frozen `ModelSpec` a YAML file in serving/catalog.

Not here: how the model is placed or run, its figures (`shape.py`), and what people want to know of it (`card.py`). Nothing below
imports Ray, vLLM or torch, so that the command line and the tests can read the catalogue on any machine.
"""

import difflib
import math
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import Field, JsonValue, ValidationError, model_validator

from serving.card import Description as Description
from serving.card import (
    Draft,
    NotKnownIsNone,
    Parsers,
    Price,
    Suggestion,
    Support,
    Terms,
    Variant,
)
from serving.place import complaint, line_of
from serving.planning.gpu import GIB, parse_gpus
from serving.planning.memory import Layout, sequence_kv_bytes
from serving.planning.plan import Question, splits, why_not
from serving.shape import Frozen, NotKnown, Shape

PACKAGE = Path(__file__).parent
CATALOG = PACKAGE / "catalog"
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where PyYAML was built with it


class SpecError(Exception):
    """A catalogue entry cannot be used. Its message is one sentence for the person at the terminal.

    SpecError
    ├── UnknownModel    no entry has this id
    └── InvalidSpec     the entry is there but wrong
    """


class UnknownModel(SpecError):
    """No catalogue entry has this id."""


class InvalidSpec(SpecError):
    """A catalogue entry is not what `ModelSpec` says."""


class EngineSpec(Frozen):
    """How vLLM runs the model. Every bound has a reason to be finite: an unbounded queue only hides that there is no room."""

    dtype: str = Field("auto", description="Weights and activations: auto, bfloat16, float16 or float32.")
    max_model_len: int | None = Field(
        None, gt=0, description="Tokens of prompt and answer together; the model's whole context if not given."
    )
    max_num_seqs: int = Field(64, gt=0, description="Sequences in one step of the engine.")
    max_num_queued_reqs: int = Field(
        128, gt=0, description="Requests running or waiting in one replica; beyond it the engine answers 503."
    )
    max_num_queued_tokens: int | None = Field(
        None, gt=0, description="Prompt tokens waiting in one replica; beyond it the engine answers 503."
    )
    kv_cache_gib: float = Field(1.0, gt=0, description="Memory for the KV cache of one replica on a CPU.")
    enforce_eager: bool = Field(False, description="Skip compilation: the replica starts sooner and computes slower.")
    extra_args: dict[str, JsonValue] = Field(
        default_factory=dict, description="Further vLLM engine arguments, by their Python names."
    )


class ReplicaCount(Frozen):
    """How many replicas the model has at the start, and the least and most it may have."""

    count: int = Field(1, ge=0)
    min: int = Field(1, ge=0)
    max: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.min <= self.count <= self.max:
            raise ValueError(f"replicas need min <= count <= max, not {self.min} <= {self.count} <= {self.max}")
        return self


class EnergySpec(Frozen):
    """What the model consumes, as an estimate: a call's own consumption is not measured."""

    prompt_wh: float = Field(ge=0, le=1000, description="Wh for 1,000 tokens of a prompt that are computed.")
    completion_wh: float = Field(ge=0, le=1000, description="Wh for 1,000 tokens that are generated.")
    source: str = Field(min_length=1, description="Where the figures come from: what was measured, or how they were reckoned.")


class SpeedSpec(Frozen):
    """What one replica does, for planning; the autoscaler goes on from here by what it measures."""

    tokens_per_s: float = Field(gt=0, description="Prompt and output together, of a busy replica that answers in time.")
    cold_start_s: float = Field(gt=0, description="From the decision to start a replica until it takes calls.")
    source: str = Field(min_length=1, description="Where the figures come from: on what, and how they were measured or reckoned.")


class ModelSpec(Frozen):
    """One model of the catalogue. `id` is also its name on the wire, the name of its Serve app, and its route."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    title: str
    family: str | None = Field(None, description="Models of one layout, such as EXAONE 4.0.")
    developer: str | None = None
    source: str = Field(
        description="Weights: a Hugging Face id, /absolute/path, or ./path: in serving, or beside the file in an own catalogue."
    )
    licence: str
    terms: Terms | None = Field(None, description="What the licence allows and forbids.")
    architecture: str = Field(description="The class name in the model's config.json.")
    support: Support = Field(Support(served=True), description="Whether the pinned vLLM can serve it.")
    images: bool = Field(False, description="Takes images.")
    context_tokens: int = Field(gt=0, description="The longest context the model was trained for.")
    description: Description
    shape: Shape | None = Field(None, description="The model in figures, for plans.")
    parsers: Parsers | None = None
    chat_template: Description | None = Field(None, description="What to mind about prompts and reasoning modes.")
    variants: tuple[Variant, ...] = Field((), description="Quantised checkpoints that are published.")
    draft: Annotated[Draft | None, NotKnownIsNone] = Field(None, description="What speculative decoding can use.")
    suggestions: tuple[Suggestion, ...] = Field((), description="GPUs that carry it.")
    engine: EngineSpec = EngineSpec()
    replicas: ReplicaCount = ReplicaCount()
    price: Annotated[Price | None, NotKnownIsNone] = Field(None, description="The maker's own price; None if not known.")
    energy: Annotated[EnergySpec | None, NotKnownIsNone] = Field(None, description="None if nothing is known.")
    speed: Annotated[SpeedSpec | None, NotKnownIsNone] = Field(
        None, description="None if nothing is known; such a model cannot be scaled automatically."
    )
    cpus: float = Field(1.0, gt=0, description="CPUs that Ray sets aside for one replica.")
    accelerator: float = Field(
        1.0, ge=0.01, le=1, multiple_of=0.01, description="The part of one accelerator that a replica takes, in hundredths."
    )

    @model_validator(mode="after")
    def _within_context(self) -> Self:
        if self.engine.max_model_len is not None and self.engine.max_model_len > self.context_tokens:
            raise ValueError(
                f"engine.max_model_len is {self.engine.max_model_len}, but the model's context has {self.context_tokens} tokens"
            )
        return self

    @model_validator(mode="after")
    def _part_of_one(self) -> Self:
        if self.accelerator < 1 and self.parallel > 1:
            raise ValueError(f"accelerator is {self.accelerator:g}, but a replica over {self.parallel} of them takes them whole")
        return self

    @model_validator(mode="after")
    def _says_why_not_served(self) -> Self:
        for name in ("served", "cpu"):
            if not getattr(self.support, name) and self.support.reason is None:
                raise ValueError(f"support.{name} is false; support.reason must say why")
        return self

    @model_validator(mode="after")
    def _memory_is_possible(self) -> Self:
        if self.shape is None:
            return self
        for number, suggestion in enumerate(self.suggestions):
            if reason := self._impossible(suggestion, self.shape):
                raise ValueError(f"suggestions.{number}: {reason}")
        try:
            needed = sequence_kv_bytes(self.shape, self.max_model_len)
        except NotKnown:
            return self
        if needed > self.engine.kv_cache_gib * GIB:
            raise ValueError(
                f"engine.kv_cache_gib is {self.engine.kv_cache_gib:g}, but one sequence of {self.max_model_len} tokens takes "
                f"{needed / GIB:.2f} GiB; raise it or lower engine.max_model_len"
            )
        return self

    def _impossible(self, suggestion: Suggestion, shape: Shape) -> str | None:
        """Why the suggested GPUs cannot carry the model."""
        gpus = parse_gpus(suggestion.gpus)
        layout = Layout(suggestion.tensor_parallel, suggestion.pipeline_parallel)
        if layout.gpus > gpus.count:
            return f"{layout.tensor} × {layout.pipeline} GPUs are more than {gpus}"
        if not splits(shape, layout.tensor):
            return f"the model's heads and widths do not split over {layout.tensor} GPUs"
        return why_not(Question(shape, gpus, suggestion.quant, suggestion.context_tokens or self.max_model_len), layout)

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together that a replica accepts."""
        return self.engine.max_model_len or self.context_tokens

    @property
    def parallel(self) -> int:
        """Accelerators that one replica is spread over."""
        sizes = (self.engine.extra_args.get(f"{name}_parallel_size", 1) for name in ("tensor", "pipeline"))
        return math.prod(size if isinstance(size, int) else 1 for size in sizes)

    @property
    def local_path(self) -> Path | None:
        """Where the weights are on this machine, or None if `source` is a Hugging Face id."""
        if self.source.startswith("./"):
            return PACKAGE / self.source
        return Path(self.source) if self.source.startswith("/") else None

    @property
    def weights(self) -> str:
        """What vLLM is told to load."""
        return str(self.local_path or self.source)


def folders(own: Path | None) -> tuple[Path, ...]:
    """The built-in catalogue and the operator's own, whose entries count where both have one of the same id."""
    return (CATALOG,) if own is None else (CATALOG, own.absolute())


def known_models(*catalog: Path) -> list[str]:
    """The ids in these folders, or in the built-in catalogue, in alphabetical order."""
    return sorted(_files(catalog))


def read_spec(model: str, *catalog: Path) -> ModelSpec:
    """Read one entry of these folders, or of the built-in catalogue. Raises UnknownModel or InvalidSpec."""
    files = _files(catalog)
    if model not in files:
        raise UnknownModel(_unknown(model, sorted(files)))
    spec = _read(files[model], model)
    if files[model].parent == CATALOG or not spec.source.startswith("./"):
        return spec
    return spec.model_copy(update={"source": str(files[model].parent / spec.source)})


def read_all(*catalog: Path) -> tuple[list[ModelSpec], list[InvalidSpec]]:
    """Every entry that can be read, in alphabetical order, and what is wrong with the others."""
    specs, wrong = list[ModelSpec](), list[InvalidSpec]()
    for model in known_models(*catalog):
        try:
            specs.append(read_spec(model, *catalog))
        except InvalidSpec as error:
            wrong.append(error)
    return specs, wrong


def _files(catalog: tuple[Path, ...]) -> dict[str, Path]:
    return {path.stem: path for folder in catalog or (CATALOG,) for path in folder.glob("*.yaml")}


def _read(path: Path, model: str) -> ModelSpec:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSpec(f"{path.name} in the catalogue cannot be read: {error}") from error
    try:
        spec = ModelSpec.model_validate(yaml.load(text, _Loader))  # noqa: S506 - the safe loader, in C
    except yaml.YAMLError as error:
        raise InvalidSpec(f"{path.name} in the catalogue is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise InvalidSpec(f"{path.name} in the catalogue: {complaint(ModelSpec, error, text)}") from error
    if spec.id != model:
        raise InvalidSpec(
            f"{path.name} in the catalogue, line {line_of(text, ('id',))}: it calls itself {spec.id}; "
            "the file must be named after the id"
        )
    return spec


def _unknown(model: str, known: list[str]) -> str:
    near = difflib.get_close_matches(model, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the catalogue has {', '.join(known) or 'no models'}"
    return f"there is no model {model!r} in the catalogue; {hint}"
