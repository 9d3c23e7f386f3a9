"""What people want to know of a model before they serve it: its terms, its parsers, its variants, what a server for it may be.

Nothing here changes how it runs, except `Parsers`. Texts that a person reads are in both languages.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from serving.shape import Frozen

QuantFormat = Literal["bf16", "fp8", "int8", "int4"]


def _none_if_not_known(value: Any) -> Any:
    return None if value == "not known" else value


NotKnownIsNone = BeforeValidator(_none_if_not_known)  # so that an entry can say it in so many words


class Description(Frozen):
    """One or two sentences for people, in both languages."""

    en: str
    ko: str


class Terms(Frozen):
    """What the licence lets one do, in a word, and what it forbids."""

    use: Literal["open", "conditional", "non-commercial", "unknown"]
    forbids: Description
    source: str = Field(min_length=1)


class Support(Frozen):
    """Whether the pinned vLLM can serve the model, and why not."""

    served: bool
    cpu: bool = Field(True, description="Also by its CPU build as daemun installs it.")
    reason: Description | None = Field(None, description="Why not, or under which condition.")


class Parsers(Frozen):
    """vLLM's parsers that take reasoning and tool calls out of the model's text, by their names in vLLM."""

    reasoning: Annotated[str | None, NotKnownIsNone] = None
    tools: Annotated[str | None, NotKnownIsNone] = None
    source: str = Field(min_length=1)


class Variant(Frozen):
    """A quantised checkpoint that somebody has published."""

    name: str = Field(description="A repository at Hugging Face.")
    format: str
    official: bool = Field(description="By the model's own maker.")


class Draft(Frozen):
    """What can propose tokens for speculative decoding."""

    method: str = Field(description="vLLM's name of the method.")
    model: str | None = Field(None, description="The draft model; None where the model has layers of its own for it.")
    speculative_tokens: int | None = Field(None, gt=0)
    source: str = Field(min_length=1)


class Suggestion(Frozen):
    """GPUs that carry the model. Checked by the planner: an entry that suggests what cannot fit is refused."""

    gpus: str = Field(pattern=r"^[A-Z0-9-]+(:[1-9]\d*)?$", description="A kind and how many of it, such as RTX4090:4.")
    quant: QuantFormat = "bf16"
    tensor_parallel: int = Field(1, gt=0)
    pipeline_parallel: int = Field(1, gt=0)
    context_tokens: int | None = Field(None, gt=0, description="Where not the whole context fits.")
    source: str | None = Field(None, description="Who suggests it; None where our own arithmetic does.")


class Price(Frozen):
    """What the maker asks for the model as a service, in won for a million tokens."""

    prompt_krw: float = Field(ge=0)
    completion_krw: float = Field(ge=0)
    source: str = Field(min_length=1)
