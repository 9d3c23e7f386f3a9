"""A model in figures: what memory arithmetic and a roofline need, each figure with its source. Pure data, no file is read.

A figure that could not be found is the word `unknown`, with the reason beside it; `Shape.need` raises `NotKnown` for it, so that
whoever reckons can say which answer is impossible and why. Rejected: leaving such keys out, which looks like an oversight, and
filling them with what is usual, which looks like a fact.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

UNKNOWN: Literal["unknown"] = "unknown"
Figure = Annotated[int, Field(gt=0)] | Literal["unknown"]


class NotKnown(Exception):
    """A figure is missing. Its message says which and why."""

    def __init__(self, figure: str, reason: str) -> None:
        super().__init__(f"{figure} is unknown ({reason})")
        self.figure = figure


class Frozen(BaseModel):
    """What every part of a catalogue entry is: unchangeable, and without keys that nobody reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(Frozen):
    """Where figures come from. `reckoned` means that nobody states them: they follow from others that are published."""

    gives: tuple[str, ...] = Field(min_length=1, description="The figures, by their keys; a group's key stands for all in it.")
    where: str = Field(min_length=1, description="The page, file or class that states them.")
    reckoned: bool = Field(False, description="They are not stated there but follow from what is stated there.")


class Latent(Frozen):
    """Multi-head latent attention: what is cached is one compressed vector for all heads, and the rotary part of the keys."""

    kv_rank: Figure = Field(description="Numbers in the compressed vector.")
    rope_size: Figure = Field(description="Numbers in the rotary part of a key, shared by all heads.")
    query_rank: Figure = Field(description="Numbers in a compressed query.")
    nope_size: Figure = Field(description="Numbers in the part of a head's key that has no rotary embedding.")
    value_size: Figure = Field(description="Numbers in a head's value.")


class Experts(Frozen):
    """A mixture of experts: of each layer's routed experts a token uses some; the shared ones it always uses."""

    routed: Figure
    active: Figure = Field(description="Routed experts that one token uses in a layer.")
    shared: int = Field(0, ge=0)
    intermediate_size: Figure = Field(description="Inner width of one expert.")
    dense_layers: int = Field(0, ge=0, description="First layers that have an ordinary feed-forward block instead.")


class Shape(Frozen):
    """Widths, depths and counts as in the model's config.json. Sizes are in numbers, not bytes."""

    parameters: Figure = Field(description="All parameters, those of an image encoder included.")
    active_parameters: Figure | None = Field(None, description="Those that one token uses; None where it uses all.")
    layers: Figure
    hidden_size: Figure
    intermediate_size: Figure | None = Field(None, description="Inner width of a dense feed-forward block; None without one.")
    heads: Figure
    kv_heads: Figure | None = Field(None, description="Heads whose keys and values are cached; None with latent attention.")
    head_size: Figure | None = Field(None, description="Width of a head; None with latent attention.")
    vocabulary: Figure
    tied_embeddings: bool | Literal["unknown"] = Field(description="The output layer is the table of the inputs.")
    window: Figure | None = Field(None, description="Tokens that a local layer looks back; None where all layers see everything.")
    global_layers: Figure | None = Field(None, description="Layers without that window; None where all are.")
    latent: Latent | Literal["unknown"] | None = None
    experts: Experts | None = None
    vision_parameters: Figure | None = Field(None, description="Those of the image encoder and its projector.")
    sources: tuple[Source, ...] = Field(min_length=1)
    unknown: dict[str, str] = Field(default_factory=dict, description="Why a figure is unknown, by its key.")

    @model_validator(mode="after")
    def _every_figure_is_accounted_for(self) -> Self:
        figures = dict(self.figures())
        groups: dict[str, type[Frozen]] = {"latent": Latent, "experts": Experts}
        known = set(type(self).model_fields) | {
            f"{name}.{inner}" for name, group in groups.items() for inner in group.model_fields
        }
        for name in {name for source in self.sources for name in source.gives} | self.unknown.keys():
            if name not in known:
                raise ValueError(f"sources or unknown speak of {name}, which is no figure of a shape")
        for name, value in figures.items():
            if value == UNKNOWN and name not in self.unknown:
                raise ValueError(f"{name} is unknown; unknown.{name} must say why")
            if value != UNKNOWN and name in self.unknown:
                raise ValueError(f"{name} is given, but unknown.{name} says that it is not")
            if value != UNKNOWN and self.source_of(name) is None:
                raise ValueError(f"{name} has no source")
        if (self.window is None) != (self.global_layers is None):
            raise ValueError("window and global_layers go together")
        if (self.kv_heads is None or self.head_size is None) and self.latent is None:
            raise ValueError("without latent attention kv_heads and head_size are needed, or the word unknown")
        return self

    def need(self, name: str) -> int:
        """The figure, by its dotted key. Raises NotKnown."""
        group, _, inner = name.partition(".")
        value = getattr(self, group, None)
        if isinstance(value, Frozen):
            value = getattr(value, inner)
        if value is None or value == UNKNOWN:
            raise NotKnown(name, self.unknown.get(name) or self.unknown.get(group) or "this model has none")
        return int(value)

    def source_of(self, name: str) -> Source | None:
        """Who states a figure."""
        group = name.partition(".")[0]
        return next((source for source in self.sources if name in source.gives or group in source.gives), None)

    def figures(self) -> Iterator[tuple[str, Any]]:
        """Every figure that this model has, by its dotted key."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name in ("sources", "unknown") or value is None:
                continue
            if isinstance(value, Frozen):
                yield from ((f"{name}.{inner}", getattr(value, inner)) for inner in type(value).model_fields)
            else:
                yield name, value
