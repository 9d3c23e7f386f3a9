"""What is shown in training: every question in each round, answers learned, questions only read."""

from serving.demo.augment import dice
from serving.demo.corpus import Corpus, Document, Entry, build_corpus
from serving.demo.lesson import Mixture, Teacher
from serving.demo.tokenizer import ASSISTANT, END, SYSTEM, USER, Encoder, train_tokenizer

PLAIN = Mixture(verbatim=1, cut=0, system=0, earlier=0, dialogue=0, stranger=0)


def small_corpus() -> Corpus:
    entries = [
        Entry("gate", "큰 문이에요.", ["게이트가 뭐예요?", "문이 뭐야?"]),
        Entry("queue", "기다리는 줄이에요.", ["큐가 뭐예요?"]),
    ]
    return build_corpus([Document(entries=entries)])


def test_a_round_shows_every_question_once_with_its_answer_alone_to_learn() -> None:
    corpus = small_corpus()
    tokenizer = train_tokenizer(corpus.texts(), 400)
    source = Teacher(corpus, Encoder(tokenizer), dice(5), PLAIN).conversations()
    shown = [next(source) for _ in range(3)]
    read = {tokenizer.decode([i for i, learn in zip(c.ids, c.learn, strict=True) if not learn]) for c in shown}
    learned = {
        tokenizer.decode([i for i, learn in zip(c.ids, c.learn, strict=True) if learn], skip_special_tokens=False) for c in shown
    }
    assert read == {f"\n{question}\n\n" for question, _ in corpus.trained_pairs()}
    assert learned == {f"{answer}{END}" for _, answer in corpus.trained_pairs()}


def test_a_conversation_has_the_form_of_the_chat_template() -> None:
    corpus = small_corpus()
    tokenizer = train_tokenizer(corpus.texts(), 400)
    teacher = Teacher(
        corpus, Encoder(tokenizer), dice(5), Mixture(verbatim=1, cut=0, system=1, earlier=0, dialogue=0, stranger=0)
    )
    text = tokenizer.decode(next(teacher.conversations()).ids, skip_special_tokens=False)
    assert text.startswith(f"{SYSTEM}\n")
    assert f"{END}\n{USER}\n" in text
    assert f"{END}\n{ASSISTANT}\n" in text
    assert text.endswith(END)


def test_cutting_words_changes_the_ids_and_not_the_text() -> None:
    tokenizer = train_tokenizer(["게이트웨이가 뭐예요?"] * 3, 400)
    encoder = Encoder(tokenizer)
    cut = encoder.encode_cut("게이트웨이가 뭐예요?", dice(1), chance=1)
    assert cut != encoder.encode("게이트웨이가 뭐예요?")
    assert tokenizer.decode(cut) == "게이트웨이가 뭐예요?"


def test_the_same_seed_gives_the_same_batches() -> None:
    corpus = small_corpus()
    encoder = Encoder(train_tokenizer(corpus.texts(), 400))
    first, second = (Teacher(corpus, encoder, dice(9), Mixture(dialogue=0, stranger=0)).batches(2, group=2) for _ in range(2))
    assert [next(first) for _ in range(6)] == [next(second) for _ in range(6)]
