"""The configuration of an EXAONE 3.5 checkpoint, which brings it itself: the fields that vLLM reads, under LG's names."""

from transformers import PreTrainedConfig


class ExaoneConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers is untyped here
    model_type = "exaone"
    attribute_map = {"num_hidden_layers": "num_layers"}  # noqa: RUF012 - as transformers wants it
