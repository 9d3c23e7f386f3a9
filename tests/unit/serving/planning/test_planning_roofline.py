"""Upper bounds on speed: worked examples, and that they move the right way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.card import QuantFormat
from serving.planning.gpu import KINDS
from serving.planning.memory import Layout, sequence_kv_bytes
from serving.planning.roofline import arithmetic_rate, fastest_decode, fastest_prefill, read_bytes, used_parameters
from serving.shape import Shape
from serving.spec import read_spec

ONE = Layout()
H100 = KINDS["H100"]


def of(model: str) -> Shape:
    found = read_spec(model).shape
    assert found is not None
    return found


def test_one_sequence_reads_the_weights_and_its_cache_for_every_token() -> None:
    solar = of("solar-10.7b")
    rate = fastest_decode(solar, "bf16", H100, ONE, sequences=1, context_tokens=4096)
    read = 2 * (10_700_000_000 - 32000 * 4096) + sequence_kv_bytes(solar, 4096)
    assert rate.tokens_s == pytest.approx(3350e9 / read)
    assert rate.bound == "memory"


def test_narrow_weights_are_read_faster() -> None:
    wide = fastest_decode(of("solar-10.7b"), "bf16", H100, ONE, sequences=1, context_tokens=1)
    narrow = fastest_decode(of("solar-10.7b"), "int4", H100, ONE, sequences=1, context_tokens=1)
    assert 3.3 < narrow.tokens_s / wide.tokens_s < 3.9


def test_mixture_reads_only_the_experts_that_one_token_uses() -> None:
    solar_open = of("solar-open-100b")
    table = 196608 * 4096
    assert read_bytes(solar_open, "bf16", 1) == pytest.approx(2 * (12e9 - table))


def test_large_batch_of_a_mixture_reads_nearly_all_weights() -> None:
    solar_open = of("solar-open-100b")
    assert read_bytes(solar_open, "bf16", 10_000) == pytest.approx(2 * (102.6e9 - 196608 * 4096), rel=0.01)


def test_stages_make_one_sequence_no_faster_but_many() -> None:
    solar = of("solar-10.7b")

    def speed(layout: Layout, sequences: int) -> float:
        return fastest_decode(solar, "bf16", H100, layout, sequences=sequences, context_tokens=4096).tokens_s

    assert speed(Layout(1, 4), 1) == speed(ONE, 1)
    assert speed(Layout(4, 1), 1) == pytest.approx(4 * speed(ONE, 1))
    assert speed(Layout(1, 4), 64) > 2 * speed(ONE, 64)


def test_prompt_takes_two_operations_a_parameter_and_its_attention() -> None:
    solar = of("solar-10.7b")
    rate = fastest_prefill(solar, "bf16", H100, ONE, prompt_tokens=4096)
    inner = used_parameters(solar) - 32000 * 4096
    operations = 2 * inner + 4 * 4096 * 48 * 4096 / 2
    assert rate.tokens_s == pytest.approx(989e12 / operations)


def test_local_layers_attend_to_their_window_only() -> None:
    exaone = of("exaone-4.0-32b")
    short, long = (fastest_prefill(exaone, "bf16", H100, ONE, prompt_tokens=tokens).tokens_s for tokens in (4096, 131072))
    assert long < short < 1.5 * long


def test_format_without_units_of_its_own_is_widened() -> None:
    assert arithmetic_rate(KINDS["RTX3090"], "fp8") == arithmetic_rate(KINDS["RTX3090"], "bf16")
    assert arithmetic_rate(KINDS["RTX4090"], "int4") == arithmetic_rate(KINDS["RTX4090"], "bf16")
    assert arithmetic_rate(H100, "fp8") == 2 * arithmetic_rate(H100, "bf16") + 1e12


@given(st.integers(1, 512), st.integers(1, 512), st.sampled_from(["bf16", "fp8", "int8", "int4"]))
def test_more_sequences_are_never_slower_in_all(one: int, other: int, quant: QuantFormat) -> None:
    few, many = sorted((one, other))
    rates = [
        fastest_decode(of("solar-open-100b"), quant, H100, Layout(4, 1), sequences=number, context_tokens=1024).tokens_s
        for number in (few, many)
    ]
    assert rates[0] <= rates[1] * (1 + 1e-9)
