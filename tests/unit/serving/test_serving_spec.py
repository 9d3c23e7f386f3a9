"""The catalogue: what can be read, and what is said about what cannot."""

from pathlib import Path

import pytest

from serving.spec import InvalidSpec, UnknownModel, known_models, read_spec

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
