"""The GPUs there are: their kinds and the nodes that they sit in."""

from __future__ import annotations

from dataclasses import dataclass

WHOLE = 100  # a GPU is shared out in hundredths: whole numbers, so that nothing is ever lost in rounding


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of GPU. `kept_mib` of its memory is never given out: the driver's, and a margin."""

    name: str
    memory_mib: int
    kept_mib: int = 0

    @property
    def usable_mib(self) -> int:
        return self.memory_mib - self.kept_mib


@dataclass(frozen=True, slots=True)
class Node:
    """A machine with `gpus` GPUs of one kind, numbered from 0.

    A `volatile` node may leave at any minute and promises nothing. One that is away for now is `up=False`, not left out: what is
    reserved is checked against the stable GPUs that are owned, and a machine that fails is no reason to refuse every plan.
    """

    id: str
    kind: str
    gpus: int
    volatile: bool = False
    up: bool = True
