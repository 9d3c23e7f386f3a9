"""The corpus is large enough, consistent, and its held-out paraphrases are really held out."""

import pytest

from serving.demo.corpus import (
    Corpus,
    CorpusError,
    Dialogue,
    Document,
    Entry,
    HeldOut,
    build_corpus,
    fold,
    is_korean,
    read_corpus,
)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return read_corpus()


def test_at_least_400_korean_questions_are_trained(corpus: Corpus) -> None:
    assert len({fold(question) for question, _ in corpus.trained_pairs() if is_korean(question)}) >= 400


def test_some_english_is_trained(corpus: Corpus) -> None:
    assert sum(not is_korean(question) for question, _ in corpus.trained_pairs()) >= 40


def test_forty_paraphrases_are_held_out_of_everything_trained(corpus: Corpus) -> None:
    trained = {fold(text) for text in corpus.texts()}
    held_out = {fold(question) for question, _ in corpus.held_out_pairs()}
    assert len(held_out) == len(corpus.held_out) == 40
    assert not held_out & trained


def test_every_answer_fits_well_into_the_evaluation_reply(corpus: Corpus) -> None:
    assert max(len(answer.encode()) for _, answer in corpus.trained_pairs()) < 1_000


def test_questions_that_differ_in_spaces_signs_and_case_are_the_same() -> None:
    assert fold("KV 캐시가 뭐예요?") == fold("kv캐시가, 뭐예요")
    assert fold("큐가 뭐예요?") != fold("키가 뭐예요?")


GATE = Entry("gate", "문이에요.", ["게이트가 뭐예요?"])


def test_a_held_out_question_that_is_trained_is_refused() -> None:
    with pytest.raises(CorpusError, match="not new"):
        build_corpus([Document(entries=[GATE], held_out=[HeldOut("게이트가  뭐예요", "gate")])])


def test_a_held_out_question_named_twice_is_refused() -> None:
    with pytest.raises(CorpusError, match="not new"):
        build_corpus([Document(entries=[GATE], held_out=[HeldOut("문이 뭐죠?", "gate"), HeldOut("문이 뭐죠", "gate")])])


def test_one_question_with_two_answers_is_refused() -> None:
    with pytest.raises(CorpusError, match="again in door"):
        build_corpus([Document(entries=[GATE, Entry("door", "큰 문이에요.", ["게이트가 뭐예요"])])])


def test_an_entry_defined_twice_is_refused() -> None:
    with pytest.raises(CorpusError, match="defined twice"):
        build_corpus([Document(entries=[GATE]), Document(entries=[GATE])])


def test_a_name_that_nobody_defined_is_refused() -> None:
    with pytest.raises(CorpusError, match="no entry is called door"):
        build_corpus([Document(entries=[GATE], dialogues=[Dialogue("gate", "그럼 문은요?", "door")])])
