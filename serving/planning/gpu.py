"""The kinds of GPUs that plans speak of, in figures of their makers' data sheets.

Memory is what the sheet calls it, in GiB for sizes that are powers of two times three or five (so are the chips), and the
sheet's gigabytes taken as 10^9 bytes for the others, which is the cautious reading. Tensor-core rates are dense: a sheet that
prints only rates "with sparsity" is halved. For the GeForce cards they are those with FP32 accumulation, which is what vLLM's
kernels use; the sheets print twice as much for FP16 accumulation.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True, slots=True)
class GpuKind:
    """One kind. Rates are in units of 10^12 a second; None where the hardware has none."""

    name: str
    memory_bytes: int
    bandwidth_gb_s: float
    bf16: float
    fp8: float | None
    int8: float | None
    int4: float | None
    watts: int
    source: str

    @property
    def memory_gib(self) -> float:
        return self.memory_bytes / GIB

    @property
    def bytes_a_second(self) -> float:
        return self.bandwidth_gb_s * 1e9

    @property
    def batched_tokens(self) -> int:
        """Tokens in one step of vLLM's server where nobody says otherwise (vllm/engine/arg_utils.py, 0.29)."""
        if self.memory_gib >= 160:
            return 16384
        return 8192 if self.memory_gib >= 70 and not self.name.startswith("A100") else 2048


_AMPERE = "NVIDIA Ampere GA102 GPU architecture whitepaper, appendix A"
_ADA = "NVIDIA Ada GPU architecture whitepaper, appendix A"
_BLACKWELL = "NVIDIA RTX Blackwell GPU architecture whitepaper, appendix A"
_A100 = "NVIDIA A100 Tensor Core GPU data sheet (SXM, June 2021)"
_H100 = "NVIDIA H100 Tensor Core GPU data sheet (SXM5); rates halved from 'with sparsity'"
_H200 = "NVIDIA H200 Tensor Core GPU data sheet (SXM); rates halved from 'with sparsity'"
_B200 = "NVIDIA DGX B200 data sheet, an eighth of the system; rates halved from 'with sparsity'"

KINDS: dict[str, GpuKind] = {
    kind.name: kind
    for kind in (
        GpuKind("RTX3090", 24 * GIB, 936, 71, None, 284, 568, 350, _AMPERE),
        GpuKind("RTX4090", 24 * GIB, 1008, 165.2, 330.3, 660.6, 1321.2, 450, _ADA),
        GpuKind("RTX5090", 32 * GIB, 1792, 209.5, 419, 838, None, 575, _BLACKWELL),
        GpuKind("A100-40", 40 * GIB, 1555, 312, None, 624, 1248, 400, _A100),
        GpuKind("A100-80", 80 * GIB, 2039, 312, None, 624, 1248, 400, _A100),
        GpuKind("L40S", 48 * GIB, 864, 362, 733, 733, 733, 350, "NVIDIA L40S data sheet"),
        GpuKind("H100", 80 * GIB, 3350, 989, 1979, 1979, None, 700, _H100),
        GpuKind("H200", 141 * 10**9, 4800, 989, 1979, 1979, None, 700, _H200),
        GpuKind("B200", 180 * 10**9, 8000, 2250, 4500, 4500, None, 1000, _B200),
    )
}


class UnknownGpu(ValueError):
    """Not a kind in the table, or not KIND or KIND:NUMBER. Its message says what would be."""


@dataclass(frozen=True, slots=True)
class Gpus:
    """So many of one kind, in one place."""

    kind: GpuKind
    count: int

    def __str__(self) -> str:
        return f"{self.count} × {self.kind.name}"


def parse_gpus(text: str) -> Gpus:
    """`RTX4090:4` is four, `H100` is one. Raises UnknownGpu."""
    found = re.fullmatch(r"([A-Za-z0-9-]+)(?::([0-9]+))?", text.strip())
    if found is None or found[2] == "0":
        raise UnknownGpu(f"{text!r} is no number of GPUs of a kind; write for example RTX4090:4")
    name = found[1].upper()
    if name not in KINDS:
        near = difflib.get_close_matches(name, KINDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(KINDS)}"
        raise UnknownGpu(f"there is no GPU kind {found[1]!r} in the table; {hint}")
    return Gpus(KINDS[name], int(found[2] or 1))
