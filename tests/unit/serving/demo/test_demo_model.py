"""The model in the repository: small enough, of the right architecture, and its tokenizer loses nothing."""

import json
import struct
from typing import Any

import pytest
from tokenizers import Tokenizer

from serving.demo.corpus import CORPUS_DIR, read_corpus

MODEL_DIR = CORPUS_DIR.parent / "model"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))


def read_json(name: str) -> Any:
    return json.loads((MODEL_DIR / name).read_text(encoding="utf-8"))


def test_the_weights_are_at_most_8_mb() -> None:
    assert (MODEL_DIR / "model.safetensors").stat().st_size <= 8_000_000


def test_the_weights_are_bf16_safetensors() -> None:
    with (MODEL_DIR / "model.safetensors").open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    assert {tensor["dtype"] for tensor in header.values()} == {"BF16"}


def test_the_architecture_is_exaone_4() -> None:
    config = read_json("config.json")
    assert config["architectures"] == ["Exaone4ForCausalLM"]
    assert config["max_position_embeddings"] == 2048


def test_generation_is_greedy_and_ends_with_the_turn(tokenizer: Any) -> None:
    defaults = read_json("generation_config.json")
    assert not defaults.get("do_sample", False)
    assert tokenizer.token_to_id("[|endofturn|]") in defaults["eos_token_id"]


@pytest.mark.parametrize(
    "text", ["안녕하세요, daemun이에요!", "뷁 쀍 햏 — 처음 보는 글자 龍 🚪", "  줄\n바꿈\t과 빈칸  ", "GPU 8장, 3.5 GiB"]
)
def test_any_text_comes_back_whole(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == text


def test_every_answer_comes_back_whole(tokenizer: Any) -> None:
    for _, answer in read_corpus().trained_pairs():
        assert tokenizer.decode(tokenizer.encode(answer, add_special_tokens=False).ids) == answer


@pytest.mark.parametrize("mark", ["[|system|]", "[|user|]", "[|assistant|]", "[|endofturn|]", "[BOS]", "[EOS]", "[PAD]"])
def test_a_role_mark_is_one_token(tokenizer: Any, mark: str) -> None:
    assert len(tokenizer.encode(mark, add_special_tokens=False).ids) == 1


def test_token_ids_follow_the_order_of_the_merges() -> None:
    """tiktoken merges by id, so that a gateway counting with it is exact only then."""
    model = read_json("tokenizer.json")["model"]
    ids = [model["vocab"]["".join(merge)] for merge in model["merges"]]
    assert ids == sorted(ids)


def test_the_chat_template_is_there() -> None:
    assert "[|assistant|]" in (MODEL_DIR / "chat_template.jinja").read_text(encoding="utf-8")
