"""Makes the conversations the demo model is trained on: corpus in, token ids and what to learn of them out.

Seeded by the random.Random it is given. It builds lists of numbers and knows nothing of tensors or optimisers.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from serving.demo.augment import Rephraser, ask_about_stranger
from serving.demo.corpus import Corpus
from serving.demo.tokenizer import ASSISTANT, END, SYSTEM, USER, Encoder

SYSTEM_PROMPTS = [
    "당신은 친절한 도우미입니다.",
    "당신은 도움이 되는 인공지능 비서입니다. 한국어로 답하세요.",
    "너는 daemun의 데모 모델이야.",
    "짧고 정중하게 답해 주세요.",
    "You are a helpful assistant.",
    "You are a helpful assistant. Answer in Korean.",
    "당신은 LG AI연구원의 EXAONE 구조를 따른 작은 시연용 모델입니다.",
    "질문에 간결하게 답하세요.",
]

Turn = tuple[str, str]  # question, answer


@dataclass(frozen=True)
class Conversation:
    """Token ids, and for each whether the model is to learn to say it (answers and their end) or only to read it."""

    ids: list[int]
    learn: list[bool]


@dataclass(frozen=True)
class Mixture:
    """How often what is shown."""

    verbatim: float = 0.15  # a question exactly as it is written in the corpus
    cut: float = 0.2  # chance of a word to be cut in two
    system: float = 0.25  # with a system prompt
    earlier: float = 0.12  # with one to three unrelated turns before
    dialogue: float = 0.06  # a second turn that leans on the first
    stranger: float = 0.05  # an unknown noun in a well-known frame


class Teacher:
    """An endless, seeded source of conversations. Every trained question comes once in each round, in a new order and form."""

    def __init__(self, corpus: Corpus, encoder: Encoder, rng: random.Random, mixture: Mixture | None = None) -> None:
        self._corpus = corpus
        self._pairs = corpus.trained_pairs()
        self._encoder = encoder
        self._rng = rng
        self._mixture = mixture or Mixture()
        self._rephraser = Rephraser.from_corpus(corpus)

    def conversations(self) -> Iterator[Conversation]:
        while True:
            for pair in self._rng.sample(self._pairs, len(self._pairs)):
                yield self._encode(self._turns(pair))

    def batches(self, size: int, group: int = 16) -> Iterator[list[Conversation]]:
        """Batches of conversations of similar length, so that little is padding: `group` batches are drawn and sorted at once."""
        source = self.conversations()
        while True:
            drawn = sorted((next(source) for _ in range(size * group)), key=lambda conversation: len(conversation.ids))
            batches = [drawn[at : at + size] for at in range(0, len(drawn), size)]
            self._rng.shuffle(batches)
            yield from batches

    def _turns(self, pair: Turn) -> list[Turn]:
        chance = self._rng.random()
        if chance < self._mixture.dialogue:
            dialogue = self._rng.choice(self._corpus.dialogues)
            first = self._corpus.entries[dialogue.after]
            return [
                (self._rng.choice(first.questions), first.answer),
                (dialogue.question, self._corpus.entries[dialogue.entry].answer),
            ]
        if chance < self._mixture.dialogue + self._mixture.stranger:
            return [(ask_about_stranger(self._corpus.strangers, self._rng), self._corpus.entries["unknown"].answer)]
        if self._rng.random() < self._mixture.earlier:
            return [*self._rng.sample(self._pairs, self._rng.randint(1, 3)), pair]
        return [pair]

    def _encode(self, turns: list[Turn]) -> Conversation:
        encoder, rng = self._encoder, self._rng
        ids: list[int] = []
        learn: list[bool] = []

        def add(tokens: list[int], learned: bool) -> None:
            ids.extend(tokens)
            learn.extend([learned] * len(tokens))

        newline = encoder.encode("\n")
        end = [encoder.token(END)]
        if rng.random() < self._mixture.system:
            add([encoder.token(SYSTEM), *newline, *encoder.encode(rng.choice(SYSTEM_PROMPTS)), *end, *newline], False)
        for question, answer in turns:
            add(
                [encoder.token(USER), *newline, *self._question(question), *end, *newline, encoder.token(ASSISTANT), *newline],
                False,
            )
            add([*encoder.encode(answer), *end], True)
            add(newline, False)
        return Conversation(ids[:-1], learn[:-1])

    def _question(self, question: str) -> list[int]:
        if self._rng.random() < self._mixture.verbatim:
            return self._encoder.encode(question)
        varied = self._rephraser.vary(question, self._rng)
        return self._encoder.encode_cut(varied, self._rng, self._mixture.cut)
