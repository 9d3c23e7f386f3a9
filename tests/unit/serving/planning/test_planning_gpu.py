"""GPU kinds: how they are named, and that their figures are of a sane order."""

import pytest

from serving.planning.gpu import GIB, KINDS, GpuKind, UnknownGpu, parse_gpus


@pytest.mark.parametrize(
    ("text", "kind", "count"), [("RTX4090:4", "RTX4090", 4), ("h100", "H100", 1), (" a100-80:2 ", "A100-80", 2)]
)
def test_kind_and_number_are_read(text: str, kind: str, count: int) -> None:
    gpus = parse_gpus(text)
    assert (gpus.kind.name, gpus.count) == (kind, count)


@pytest.mark.parametrize("text", ["RTX4090:0", "RTX4090:", "4×RTX4090", "", "RTX4090:-1", "RTX4090:2:2"])
def test_what_is_no_number_of_gpus_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UnknownGpu, match="RTX4090:4"):
        parse_gpus(text)


def test_mistyped_kind_names_the_nearest() -> None:
    with pytest.raises(UnknownGpu, match="did you mean RTX4090"):
        parse_gpus("RTX4900")


def test_kind_unlike_any_lists_the_table() -> None:
    with pytest.raises(UnknownGpu, match=r"RTX3090.*B200"):
        parse_gpus("abacus")


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_figures_of_a_kind_are_of_a_sane_order_and_have_a_source(kind: GpuKind) -> None:
    assert 16 * GIB <= kind.memory_bytes <= 300 * GIB
    assert 500 <= kind.bandwidth_gb_s <= 10_000
    assert 50 <= kind.bf16 <= 3000
    for narrow in (kind.fp8, kind.int8):
        assert narrow is None or 1.9 <= narrow / kind.bf16 <= 4.1
    assert kind.source
