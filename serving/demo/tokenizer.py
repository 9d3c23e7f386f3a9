"""The demo model's tokenizer and chat template: byte-level BPE made from the corpus, with EXAONE's role marks.

Byte-level, so that any text can be written and read back, Hangul or not. Token ids follow the order of the merges, as tiktoken
wants it. The regular expression is GPT-2's, which tokenizers calls ByteLevel.
"""

import random
import re
from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

PAD, BOS, EOS, UNK = "[PAD]", "[BOS]", "[EOS]", "[UNK]"
SYSTEM, USER, ASSISTANT, END = "[|system|]", "[|user|]", "[|assistant|]", "[|endofturn|]"
SPECIAL_TOKENS = [PAD, BOS, EOS, UNK, SYSTEM, USER, ASSISTANT, END]

# OpenAI clients also send "developer" (a system prompt by another name); whatever else comes is read as the user's.
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{%- if message['role'] in ['system', 'developer'] %}{{- '[|system|]\\n' }}"
    "{%- elif message['role'] == 'assistant' %}{{- '[|assistant|]\\n' }}"
    "{%- else %}{{- '[|user|]\\n' }}"
    "{%- endif %}"
    "{{- (message['content'] or '') | trim }}{{- '[|endofturn|]\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '[|assistant|]\\n' }}{%- endif %}"
)

_WORDS = re.compile(r"\s*\S+|\s+")


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE tokenizer of at most `vocabulary` entries, special tokens included."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


class Encoder:
    """Text to token ids, with words cut at random where asked.

    A small vocabulary holds most trained words whole, and a word of a new form comes in pieces that the model has never seen
    together. Cutting trained words at random places shows it the pieces too (subword regularisation). The tokenizers library can
    drop merges itself, but from a random source that cannot be seeded.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """The ids that the saved tokenizer gives."""
        if text not in self._known:
            self._known[text] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return self._known[text]

    def encode_cut(self, text: str, rng: random.Random, chance: float) -> list[int]:
        """Ids of the same text, each word cut in two with the given chance.

        Half of the cuts fall between a word and the space before it: then its tokens are those it has at the start of a text.
        """
        ids: list[int] = []
        for word in _WORDS.findall(text):
            if len(word) > 2 and rng.random() < chance:
                at = 1 if word[0] == " " and rng.random() < 0.5 else rng.randrange(1, len(word))
                ids += self.encode(word[:at]) + self.encode(word[at:])
            else:
                ids += self.encode(word)
        return ids

    def token(self, name: str) -> int:
        """The id of a special token."""
        found = self._tokenizer.token_to_id(name)
        assert found is not None, name  # noqa: S101 - the names above are the vocabulary's own
        return int(found)
