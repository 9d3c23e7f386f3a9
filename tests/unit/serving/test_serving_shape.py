"""A model in figures: every one has a source, or a reason why it has none."""

from typing import Any

import pytest
from pydantic import ValidationError

from serving.shape import NotKnown, Shape

SOURCE = {
    "gives": [
        "parameters",
        "layers",
        "hidden_size",
        "intermediate_size",
        "heads",
        "kv_heads",
        "head_size",
        "vocabulary",
        "tied_embeddings",
    ],
    "where": "config.json",
}


def shape(**changed: Any) -> Shape:
    """A small dense model, with some figures changed."""
    figures: dict[str, Any] = {
        "parameters": 1_000_000,
        "layers": 4,
        "hidden_size": 128,
        "intermediate_size": 256,
        "heads": 4,
        "kv_heads": 2,
        "head_size": 32,
        "vocabulary": 1000,
        "tied_embeddings": True,
        "sources": [SOURCE],
    }
    return Shape.model_validate(figures | changed)


def test_figure_that_is_given_is_needed_without_fuss() -> None:
    assert shape().need("layers") == 4


def test_unknown_figure_says_which_and_why() -> None:
    unknown = shape(layers="unknown", unknown={"layers": "the page was torn"})
    with pytest.raises(NotKnown, match=r"layers is unknown \(the page was torn\)"):
        unknown.need("layers")


def test_unknown_group_explains_every_figure_in_it() -> None:
    unknown = shape(kv_heads=None, head_size=None, latent="unknown", unknown={"latent": "not in the README"})
    with pytest.raises(NotKnown, match="not in the README"):
        unknown.need("latent.kv_rank")


def test_source_of_a_group_stands_for_every_figure_in_it() -> None:
    experts = {"routed": 8, "active": 2, "intermediate_size": 64}
    known = shape(
        experts=experts, active_parameters=10, sources=[SOURCE, {"gives": ["experts", "active_parameters"], "where": "B"}]
    )
    source = known.source_of("experts.routed")
    assert source is not None
    assert source.where == "B"


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"layers": "unknown"}, "layers is unknown; unknown.layers must say why"),
        ({"unknown": {"layers": "lost"}}, "layers is given, but unknown.layers says that it is not"),
        ({"active_parameters": 10}, "active_parameters has no source"),
        ({"unknown": {"wings": "none"}}, "speak of wings, which is no figure"),
        ({"kv_heads": None}, "kv_heads and head_size are needed"),
        ({"window": 16, "sources": [SOURCE, {"gives": ["window"], "where": "B"}]}, "window and global_layers go together"),
        ({"heads": 0}, "greater than 0"),
    ],
)
def test_shape_that_leaves_something_open_is_refused(changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        shape(**changed)
