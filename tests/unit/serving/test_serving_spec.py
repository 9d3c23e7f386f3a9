"""The catalogue: what can be read, and what is said about what cannot."""

from pathlib import Path

import pytest

from serving.spec import InvalidSpec, UnknownModel, folders, known_models, read_all, read_spec

ENTRY = """
id: small
title: Small
source: ./demo/model
licence: Apache-2.0
architecture: Exaone4ForCausalLM
context_tokens: 2048
description: {en: A model., ko: 모델입니다.}
"""


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(ENTRY, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("model", known_models())
def test_every_catalogue_entry_can_be_read(model: str) -> None:
    assert read_spec(model).id == model


def test_demo_model_is_in_the_catalogue() -> None:
    assert "daemun-demo" in known_models()


def test_engine_queue_is_bounded_unless_told_otherwise(catalog: Path) -> None:
    assert read_spec("small", catalog).engine.max_num_queued_reqs > 0


def test_served_length_is_the_whole_context_unless_told_otherwise(catalog: Path) -> None:
    assert read_spec("small", catalog).max_model_len == 2048


def test_unknown_model_names_the_nearest_known_one() -> None:
    with pytest.raises(UnknownModel, match="did you mean daemun-demo"):
        read_spec("daemun-dmo")


def test_unknown_model_unlike_any_lists_the_catalogue(catalog: Path) -> None:
    with pytest.raises(UnknownModel, match="the catalogue has small"):
        read_spec("zzz", catalog)


def test_path_instead_of_a_name_is_no_model(catalog: Path) -> None:
    with pytest.raises(UnknownModel):
        read_spec("../small", catalog)


def test_unknown_key_is_named(catalog: Path) -> None:
    (catalog / "small.yaml").write_text(ENTRY + "engine: {max_seqs: 4}\n", encoding="utf-8")
    with pytest.raises(InvalidSpec, match=r"small\.yaml in the catalogue: engine\.max_seqs"):
        read_spec("small", catalog)


def test_served_length_beyond_the_context_is_refused(catalog: Path) -> None:
    (catalog / "small.yaml").write_text(ENTRY + "engine: {max_model_len: 4096}\n", encoding="utf-8")
    with pytest.raises(InvalidSpec, match=r"4096.*2048"):
        read_spec("small", catalog)


@pytest.mark.parametrize("replicas", ["{count: 3, min: 1, max: 2}", "{count: 1, min: 2, max: 3}"])
def test_replica_counts_out_of_order_are_refused(catalog: Path, replicas: str) -> None:
    (catalog / "small.yaml").write_text(ENTRY + f"replicas: {replicas}\n", encoding="utf-8")
    with pytest.raises(InvalidSpec, match="min <= count <= max"):
        read_spec("small", catalog)


def test_file_must_be_named_after_its_id(catalog: Path) -> None:
    (catalog / "other.yaml").write_text(ENTRY, encoding="utf-8")
    with pytest.raises(InvalidSpec, match="calls itself small"):
        read_spec("other", catalog)


@pytest.mark.parametrize("text", ["id: [", "just text", ""])
def test_what_is_no_entry_is_refused_in_one_line(catalog: Path, text: str) -> None:
    (catalog / "small.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidSpec) as refused:
        read_spec("small", catalog)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("source", "local"),
    [("./demo/model", True), ("/models/small", True), ("LGAI-EXAONE/EXAONE-4.0-1.2B", False)],
)
def test_source_is_local_or_a_hub_id(catalog: Path, source: str, local: bool) -> None:
    (catalog / "small.yaml").write_text(ENTRY.replace("./demo/model", source), encoding="utf-8")
    spec = read_spec("small", catalog)
    assert (spec.local_path is not None) is local
    assert Path(spec.weights).is_absolute() is local


FIGURES = """
shape:
  parameters: 1_000_000_000
  layers: 32
  hidden_size: 4096
  intermediate_size: 14336
  heads: 32
  kv_heads: 8
  head_size: 128
  vocabulary: 32000
  tied_embeddings: false
  sources:
    - gives: [parameters, layers, hidden_size, intermediate_size, heads, kv_heads, head_size, vocabulary, tied_embeddings]
      where: config.json
"""


def refused(catalog: Path, more: str) -> str:
    (catalog / "small.yaml").write_text(ENTRY + more, encoding="utf-8")
    with pytest.raises(InvalidSpec) as error:
        read_spec("small", catalog)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_unknown_key_comes_with_its_line_and_the_nearest_known_one(catalog: Path) -> None:
    said = refused(catalog, "engine:\n  dtype: auto\n  max_num_seq: 4\n")
    assert said == (
        "small.yaml in the catalogue: engine.max_num_seq (line 11) is no key that daemun knows; did you mean max_num_seqs?"
    )


def test_what_is_not_known_can_be_said_in_words(catalog: Path) -> None:
    (catalog / "small.yaml").write_text(ENTRY + "price: not known\nenergy: not known\ndraft: not known\n", encoding="utf-8")
    spec = read_spec("small", catalog)
    assert (spec.price, spec.energy, spec.draft) == (None, None, None)


def test_model_that_is_not_served_must_say_why(catalog: Path) -> None:
    assert "support.reason must say why" in refused(catalog, "support: {served: false}\n")


def test_suggested_gpus_that_cannot_carry_the_model_are_refused_with_their_line(catalog: Path) -> None:
    impossible = FIGURES.replace("1_000_000_000", "70_000_000_000")
    said = refused(catalog, f"{impossible}suggestions:\n  - {{gpus: RTX4090, quant: bf16}}\n")
    assert "line 24: suggestions.0: it does not fit on 1 × RTX4090 in bf16" in said


@pytest.mark.parametrize(
    ("suggestion", "complaint"),
    [
        ("{gpus: RTX4900}", "did you mean RTX4090"),
        ("{gpus: 'H100:2', tensor_parallel: 4}", "4 × 1 GPUs are more than 2 × H100"),
        ("{gpus: 'H100:4', tensor_parallel: 3}", "do not split over 3 GPUs"),
        ("{gpus: 'four of them'}", "suggestions"),
    ],
)
def test_suggestion_that_makes_no_sense_is_refused(catalog: Path, suggestion: str, complaint: str) -> None:
    assert complaint in refused(catalog, f"{FIGURES}suggestions: [{suggestion}]\n")


def test_cache_too_small_for_one_sequence_is_refused_with_its_line(catalog: Path) -> None:
    said = refused(catalog, f"{FIGURES}engine:\n  kv_cache_gib: 0.1\n")
    assert "line 24: engine.kv_cache_gib is 0.1, but one sequence of 2048 tokens takes 0.25 GiB" in said


def test_figure_without_a_source_is_refused(catalog: Path) -> None:
    assert "layers has no source" in refused(
        catalog, FIGURES.replace("layers, hidden_size, intermediate", "hidden_size, intermediate")
    )


def test_own_catalogue_is_beside_the_built_in_one(catalog: Path) -> None:
    assert {"small", "daemun-demo"} <= set(known_models(*folders(catalog)))
    assert read_spec("small", *folders(catalog)).id == "small"
    assert read_spec("daemun-demo", *folders(catalog)).id == "daemun-demo"


def test_own_entry_counts_before_a_built_in_one_of_the_same_id(catalog: Path) -> None:
    (catalog / "daemun-demo.yaml").write_text(ENTRY.replace("id: small", "id: daemun-demo"), encoding="utf-8")
    assert read_spec("daemun-demo", *folders(catalog)).title == "Small"
    assert read_spec("daemun-demo", *folders(None)).title != "Small"


def test_weights_of_an_own_entry_lie_beside_it(catalog: Path) -> None:
    assert read_spec("small", *folders(catalog)).local_path == catalog / "demo" / "model"


def test_own_entry_is_checked_like_any_other(catalog: Path) -> None:
    (catalog / "small.yaml").write_text(ENTRY + "engine: {max_seqs: 4}\n", encoding="utf-8")
    with pytest.raises(InvalidSpec, match=r"engine\.max_seqs"):
        read_spec("small", *folders(catalog))


@pytest.mark.parametrize("broken", [b"id: [", b"\xff\xfe", b"id: broken\n"])
def test_one_broken_entry_hides_no_other(catalog: Path, broken: bytes) -> None:
    (catalog / "broken.yaml").write_bytes(broken)
    specs, wrong = read_all(*folders(catalog))
    assert {"small", "daemun-demo"} <= {spec.id for spec in specs}
    assert [str(error).startswith("broken.yaml in the catalogue") for error in wrong] == [True]
