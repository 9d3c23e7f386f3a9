"""llama.cpp's server from PyPI with a tiny random model, as a process, in an environment of its own. It imports nothing of ours.

usage: python llama_cpp_server.py MODEL.gguf PORT
"""

# mypy: ignore-errors
from __future__ import annotations

import sys
from pathlib import Path

import gguf
import numpy as np

_WIDTH, _FORWARD, _LAYERS, _HEADS, _CONTEXT = 64, 128, 2, 2, 512
_WORDS = ["안녕", "하세요", " 대문", "입니다", ".", "!", "?"]
_NORMAL, _CONTROL, _BYTE, _UNKNOWN = 1, 3, 6, 2


def write(path: Path) -> None:
    """A Llama with a vocabulary of single bytes and a few words; what it says means nothing."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *_WORDS]
    out = gguf.GGUFWriter(path, "llama")
    out.add_context_length(_CONTEXT)
    out.add_embedding_length(_WIDTH)
    out.add_block_count(_LAYERS)
    out.add_feed_forward_length(_FORWARD)
    out.add_head_count(_HEADS)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(len(tokens))
    out.add_tokenizer_model("llama")
    out.add_token_list(tokens)
    out.add_token_scores([0.0] * len(tokens))
    out.add_token_types([_UNKNOWN, _CONTROL, _CONTROL] + [_BYTE] * 256 + [_NORMAL] * (1 + len(_WORDS)))
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_chat_template("{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    for name, shape in _shapes(len(tokens)).items():
        ones = "norm" in name
        random = np.random.default_rng(len(name)).standard_normal(shape) * 0.3
        out.add_tensor(name, (np.ones(shape) if ones else random).astype(np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def _shapes(vocabulary: int) -> dict[str, tuple[int, ...]]:
    square, shapes = (_WIDTH, _WIDTH), {"output_norm.weight": (_WIDTH,)}
    for name in ("token_embd", "output"):
        shapes[f"{name}.weight"] = (vocabulary, _WIDTH)
    for layer in range(_LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            shapes[f"blk.{layer}.{name}.weight"] = square
        for name in ("attn_norm", "ffn_norm"):
            shapes[f"blk.{layer}.{name}.weight"] = (_WIDTH,)
        for name, shape in (("ffn_gate", (_FORWARD, _WIDTH)), ("ffn_up", (_FORWARD, _WIDTH)), ("ffn_down", (_WIDTH, _FORWARD))):
            shapes[f"blk.{layer}.{name}.weight"] = shape
    return shapes


def main(model: str, port: str) -> None:
    from llama_cpp.server.__main__ import main as serve

    if not Path(model).exists():
        write(Path(model))
    sys.argv = ["llama_cpp.server", "--model", model, "--n_ctx", str(_CONTEXT), "--n_threads", "1", "--port", port]
    serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
