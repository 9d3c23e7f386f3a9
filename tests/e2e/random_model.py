"""Small random models of the catalogue's families: the same architecture and layout, a few hundred thousand parameters.

`python -m tests.e2e.random_model FOLDER FAMILY…` writes them: configuration, weights by the names that published checkpoints use,
and the demo model's tokenizer. A process of its own, because torch and transformers are slow to import and warn a lot.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

DEMO = Path(__file__).parents[2] / "serving" / "demo" / "model"
CODE = Path(__file__).parent / "random_model_code"
VOCABULARY = 3000  # the demo tokenizer's
# What published configurations say of their routing and what transformers' classes for them leave out.
_ROUTING: dict[str, Any] = {"topk_method": "noaux_tc", "scoring_func": "sigmoid", "moe_layer_freq": 1, "first_k_dense_replace": 1}
ROUTED = {"kanana-2": _ROUTING, "ax-k1": _ROUTING | {"num_nextn_predict_layers": 0}}
THINKS = frozenset({"solar"})  # their tokenizers have tokens around thoughts, in the place of two that no text has
TOKENS = {"bos_token_id": 1, "eos_token_id": 7, "pad_token_id": 0}
NARROW: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 2048,
    **TOKENS,
}
# vLLM's CPU kernels for latent attention know one width of it, that of the published models.
LATENT: dict[str, Any] = {
    "kv_lora_rank": 512,
    "q_lora_rank": 64,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
EXPERTS: dict[str, Any] = {
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "n_group": 1,
    "topk_group": 1,
}


def llama(**changed: Any) -> Any:
    """SOLAR, A.X 3.1, HyperCLOVA X SEED text, Llama-VARCO, Kanana 1.5, Mi:dm 2.0."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**NARROW | changed))


def qwen2() -> Any:
    """A.X 4.0."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(**{name: value for name, value in NARROW.items() if name != "head_dim"}))


def exaone4() -> Any:
    from transformers import Exaone4Config, Exaone4ForCausalLM

    return Exaone4ForCausalLM(
        Exaone4Config(**NARROW | {"num_hidden_layers": 4, "sliding_window": 64, "sliding_window_pattern": 4})
    )


def k_exaone() -> Any:
    from transformers import ExaoneMoeConfig, ExaoneMoeForCausalLM

    layout = {"num_hidden_layers": 4, "sliding_window": 64, "sliding_window_pattern": 4, "first_k_dense_replace": 1}
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "num_shared_experts": 1, "moe_intermediate_size": 64}
    return ExaoneMoeForCausalLM(ExaoneMoeConfig(**NARROW | layout | experts))


def solar_open() -> Any:
    from transformers import SolarOpenConfig, SolarOpenForCausalLM

    return SolarOpenForCausalLM(
        SolarOpenConfig(**{name: value for name, value in NARROW.items() if name != "intermediate_size"} | EXPERTS)
    )


def ax_k1() -> Any:
    from transformers import AXK1Config, AXK1ForCausalLM

    layout = {"first_k_dense_replace": 1, "num_hidden_layers": 3}
    return AXK1ForCausalLM(AXK1Config(**NARROW | LATENT | EXPERTS | layout))


def kanana2() -> Any:
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    layout = {"first_k_dense_replace": 1, "num_hidden_layers": 3, "n_shared_experts": 2}
    return DeepseekV3ForCausalLM(DeepseekV3Config(**NARROW | LATENT | EXPERTS | layout))


def hyperclovax(**changed: Any) -> Any:
    from transformers import HyperCLOVAXConfig, HyperCLOVAXForCausalLM

    return HyperCLOVAXForCausalLM(HyperCLOVAXConfig(**NARROW | {"embedding_multiplier": 2.0, "logits_scaling": 0.5} | changed))


def exaone35(folder: Path) -> None:
    """EXAONE 3.5 is unknown to transformers: its configuration is code in the repository, and so it is here."""
    sizes = {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
    }
    config = sizes | {
        "architectures": ["ExaoneForCausalLM"],
        "auto_map": {"AutoConfig": "configuration_exaone.ExaoneConfig"},
        "model_type": "exaone",
        "activation_function": "silu",
        "layer_norm_epsilon": 1e-5,
        "max_position_embeddings": 2048,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
        "vocab_size": VOCABULARY,
        **TOKENS,
    }
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(CODE / "configuration_exaone.py", folder)
    shapes = {"transformer.wte.weight": (VOCABULARY, 128), "transformer.ln_f.weight": (128,), "lm_head.weight": (VOCABULARY, 128)}
    for layer in range(2):
        attention, block = f"transformer.h.{layer}.attn.attention", f"transformer.h.{layer}"
        shapes |= {
            f"{attention}.{name}.weight": (width, 128) for name, width in (("q_proj", 128), ("k_proj", 64), ("v_proj", 64))
        }
        shapes |= {f"{attention}.out_proj.weight": (128, 128), f"{block}.mlp.c_proj.weight": (128, 256)}
        shapes |= {f"{block}.mlp.c_fc_{number}.weight": (256, 128) for number in (0, 1)}
        shapes |= {f"{block}.ln_{number}.weight": (128,) for number in (1, 2)}
    weights = {name: torch.ones(shape) if len(shape) == 1 else torch.randn(shape) * 0.05 for name, shape in shapes.items()}
    save_file({name: weight.bfloat16() for name, weight in weights.items()}, folder / "model.safetensors", {"format": "pt"})


FAMILIES: dict[str, Callable[[], Any]] = {
    "solar": llama,
    "ax-3.1": lambda: llama(num_key_value_heads=4, intermediate_size=340),
    "hyperclovax-text": lambda: llama(tie_word_embeddings=True, head_dim=64),
    "ax-4.0": qwen2,
    "exaone-4.0": exaone4,
    "k-exaone": k_exaone,
    "solar-open": solar_open,
    "ax-k1": ax_k1,
    "kanana-2": kanana2,
    "hyperclovax-think": hyperclovax,
}


def write(family: str, folder: Path) -> None:
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    if family == "exaone-3.5":
        exaone35(folder)
    else:
        FAMILIES[family]().bfloat16().save_pretrained(folder)
    if family in ROUTED:
        _changed(folder / "config.json", ROUTED[family])
    if family == "ax-k1":
        _with_norms_of_dense_layers(folder / "model.safetensors")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        shutil.copy(DEMO / name, folder)
    if family in THINKS:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            text = (folder / name).read_text(encoding="utf-8")
            (folder / name).write_text(text.replace('"[EOS]"', '"<think>"').replace('"[UNK]"', '"</think>"'), encoding="utf-8")


def _with_norms_of_dense_layers(weights: Path) -> None:
    """Published A.X K1 checkpoints have a norm behind the dense block too, which transformers leaves out and vLLM wants."""
    known = load_file(weights)
    save_file(
        known | {"model.layers.0.post_mlp_layernorm.weight": torch.ones_like(known["model.norm.weight"])},
        weights,
        {"format": "pt"},
    )


def _changed(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


if __name__ == "__main__":
    for wanted in sys.argv[2:]:
        write(wanted, Path(sys.argv[1]) / wanted)
