"""Bytes of weights and cache, against numbers worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.planning.memory import (
    Layout,
    embedding_parameters,
    kv_share,
    layer_kv_bytes,
    sequence_kv_bytes,
    step_bytes,
    weight_bytes,
)
from serving.shape import NotKnown, Shape
from serving.spec import read_spec
from tests.unit.serving.test_serving_shape import SOURCE, shape


def exaone() -> Shape:
    """EXAONE 4.0 32B: three layers in four look back 4,096 tokens."""
    found = read_spec("exaone-4.0-32b").shape
    assert found is not None
    return found


LATENT = {"kv_rank": 512, "rope_size": 64, "query_rank": 1536, "nope_size": 128, "value_size": 128}


def latent() -> Shape:
    sources = [SOURCE, {"gives": ["latent"], "where": "B"}]
    return shape(kv_heads=None, head_size=None, latent=LATENT, sources=sources)


def test_wide_weights_are_two_bytes_each() -> None:
    assert weight_bytes(shape(), "bf16") == 2_000_000


def test_narrow_weights_leave_the_embeddings_wide() -> None:
    embeddings = 1000 * 128
    assert weight_bytes(shape(), "fp8") == (1_000_000 - embeddings) + 2 * embeddings
    assert weight_bytes(shape(), "int4") == (1_000_000 - embeddings) * (0.5 + 2 / 128) + 2 * embeddings


def test_separate_output_layer_is_a_second_table() -> None:
    assert embedding_parameters(shape(tied_embeddings=False)) == 2 * embedding_parameters(shape())


def test_image_encoder_stays_wide() -> None:
    seeing = shape(vision_parameters=100_000, sources=[SOURCE, {"gives": ["vision_parameters"], "where": "B"}])
    assert weight_bytes(seeing, "fp8") - weight_bytes(shape(), "fp8") == 100_000


def test_cache_of_a_token_is_keys_and_values_of_all_cached_heads() -> None:
    assert layer_kv_bytes(shape()) == 2 * 2 * 32 * 2
    assert sequence_kv_bytes(shape(), 10) == 4 * 10 * 2 * 2 * 32 * 2


def test_latent_cache_is_one_vector_and_a_rotary_key() -> None:
    assert layer_kv_bytes(latent()) == (512 + 64) * 2


def test_layers_with_a_window_keep_no_more_than_the_window() -> None:
    token_and_layer = 2 * 8 * 128 * 2
    assert sequence_kv_bytes(exaone(), 4096) == token_and_layer * 64 * 4096
    assert sequence_kv_bytes(exaone(), 131072) == token_and_layer * (16 * 131072 + 48 * 4096)


def test_tensor_parallel_splits_heads_but_not_a_latent_vector() -> None:
    assert kv_share(shape(), Layout(2, 1)) == 0.5
    assert kv_share(shape(), Layout(4, 1)) == 0.5  # two cached heads cannot be on four GPUs without copies
    assert kv_share(latent(), Layout(4, 1)) == 1
    assert kv_share(latent(), Layout(1, 4)) == 0.25


def test_uneven_stages_are_counted_by_the_fullest() -> None:
    assert kv_share(shape(), Layout(1, 3)) == 0.5


def test_workspace_shrinks_with_tensor_parallel_and_grows_with_the_batch() -> None:
    assert (
        step_bytes(shape(), Layout(2, 1), 2048)
        < step_bytes(shape(), Layout(1, 1), 2048)
        < step_bytes(shape(), Layout(1, 1), 8192)
    )


def test_missing_figure_says_that_it_is_missing() -> None:
    unknown = shape(kv_heads="unknown", unknown={"kv_heads": "lost"}, sources=[SOURCE])
    with pytest.raises(NotKnown, match="kv_heads"):
        sequence_kv_bytes(unknown, 1)
    assert weight_bytes(unknown, "bf16") == 2_000_000


@given(st.integers(1, 200_000), st.integers(1, 200_000))
def test_longer_sequence_never_keeps_less(one: int, other: int) -> None:
    short, long = sorted((one, other))
    assert sequence_kv_bytes(exaone(), short) <= sequence_kv_bytes(exaone(), long)


@given(st.sampled_from([1, 2, 4, 8]), st.integers(1, 8))
def test_a_gpu_never_keeps_less_than_its_even_share(tensor: int, pipeline: int) -> None:
    assert kv_share(exaone(), Layout(tensor, pipeline)) >= 1 / (tensor * pipeline) - 1e-12
