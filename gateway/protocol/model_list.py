"""What servers answer at /v1/models."""

from __future__ import annotations

import msgspec


class Model(msgspec.Struct, frozen=True):
    """A model under the server's own name. vLLM's `owned_by` is `vllm`, whatever the model."""

    id: str
    owned_by: str = ""


class _Models(msgspec.Struct, frozen=True):
    data: tuple[Model, ...]


_lists = msgspec.json.Decoder(_Models)


def read(body: bytes) -> tuple[Model, ...]:
    """The models in a list. Raises msgspec.DecodeError or UnicodeDecodeError."""
    return _lists.decode(body).data
