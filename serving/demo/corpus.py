"""The demo model's corpus: what it is taught, and what is kept out to test it.

Each file under corpus/ is one topic. An entry is one answer with several ways to ask for it; a dialogue is a second turn that
leans on the turn before; a held-out question is a paraphrase that is never trained on. Reading checks all of it, so that a
mistake in the corpus shows before twenty minutes of training and not after. This module knows nothing of models or tokens.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

CORPUS_DIR = Path(__file__).parent / "corpus"
_HANGUL = re.compile(r"[가-힣]")
_NOT_A_LETTER = re.compile(r"[\W_]+")


class CorpusError(ValueError):
    """The corpus contradicts itself; the message says where."""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One answer and the trained ways to ask for it."""

    id: str
    answer: str
    questions: list[str]


class Dialogue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A second turn: `question`, asked after the answer of the entry `after`, wants the answer of `entry`."""

    after: str
    question: str
    entry: str


class HeldOut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A paraphrase kept out of training, and the entry whose answer is right."""

    question: str
    entry: str


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One corpus file."""

    topic: str = ""
    entries: list[Entry] = []
    dialogues: list[Dialogue] = []
    held_out: list[HeldOut] = []
    strangers: list[str] = []


@dataclass(frozen=True)
class Corpus:
    """The whole corpus, checked."""

    entries: Mapping[str, Entry]
    dialogues: tuple[Dialogue, ...]
    held_out: tuple[HeldOut, ...]
    strangers: tuple[str, ...]  # nouns the model does not know, used in training alone

    def trained_pairs(self) -> list[tuple[str, str]]:
        """Every trained question with its answer, in the order of the files."""
        return [(question, entry.answer) for entry in self.entries.values() for question in entry.questions]

    def held_out_pairs(self) -> list[tuple[str, str]]:
        """Every held-out paraphrase with the answer it should get."""
        return [(held.question, self.entries[held.entry].answer) for held in self.held_out]

    def texts(self) -> list[str]:
        """All text that is trained on, for the tokenizer. The held-out questions are not in it."""
        pairs = self.trained_pairs()
        answers = [entry.answer for entry in self.entries.values()]
        return [question for question, _ in pairs] + answers + [d.question for d in self.dialogues] + list(self.strangers)


def is_korean(text: str) -> bool:
    """Whether the text has any Hangul."""
    return _HANGUL.search(text) is not None


def fold(text: str) -> str:
    """The text without case, spaces and punctuation: two questions with one fold are the same question."""
    return _NOT_A_LETTER.sub("", unicodedata.normalize("NFKC", text)).casefold()


def read_corpus(directory: Path = CORPUS_DIR) -> Corpus:
    """Read and check every file of the corpus. Raises CorpusError."""
    documents = []
    for path in sorted(directory.glob("*.yaml")):
        try:
            documents.append(msgspec.yaml.decode(path.read_bytes(), type=Document))
        except msgspec.MsgspecError as error:
            raise CorpusError(f"{path.name}: {error}") from error
    return build_corpus(documents)


def build_corpus(documents: Iterable[Document]) -> Corpus:
    """Put the documents together. Raises CorpusError for a name used twice or nowhere defined, a question asked twice, or a
    held-out paraphrase that is also trained on."""
    entries: dict[str, Entry] = {}
    dialogues: list[Dialogue] = []
    held_out: list[HeldOut] = []
    strangers: list[str] = []
    for document in documents:
        for entry in document.entries:
            if entry.id in entries:
                raise CorpusError(f"the entry {entry.id} is defined twice")
            entries[entry.id] = entry
        dialogues += document.dialogues
        held_out += document.held_out
        strangers += document.strangers
    corpus = Corpus(entries, tuple(dialogues), tuple(held_out), tuple(strangers))
    _check_names(corpus)
    _check_questions(corpus)
    return corpus


def _check_names(corpus: Corpus) -> None:
    names = [name for dialogue in corpus.dialogues for name in (dialogue.after, dialogue.entry)]
    names += [held.entry for held in corpus.held_out]
    for name in names:
        if name not in corpus.entries:
            raise CorpusError(f"no entry is called {name}")


def _check_questions(corpus: Corpus) -> None:
    owner: dict[str, str] = {}
    for entry in corpus.entries.values():
        for question in entry.questions:
            other = owner.setdefault(fold(question), entry.id)
            if other != entry.id or entry.questions.count(question) > 1:
                raise CorpusError(f"{question!r} is asked in {other} and again in {entry.id}")
    dialogue_folds = {fold(dialogue.question) for dialogue in corpus.dialogues}
    seen: set[str] = set()
    for held in corpus.held_out:
        folded = fold(held.question)
        if folded in owner or folded in dialogue_folds or folded in seen:
            raise CorpusError(f"the held-out question {held.question!r} is not new")
        seen.add(folded)
