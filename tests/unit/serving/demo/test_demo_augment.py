"""Questions are said differently, reproducibly, and without losing what they ask about."""

from serving.demo.augment import Rephraser, ask_about_stranger, change_ending, common_words, dice, exchange
from serving.demo.corpus import fold, read_corpus


def test_the_same_seed_gives_the_same_variations() -> None:
    rephraser = Rephraser.from_corpus(read_corpus())
    first, second = dice(7), dice(7)
    assert [rephraser.vary("대기열이 뭐예요?", first) for _ in range(50)] == [
        rephraser.vary("대기열이 뭐예요?", second) for _ in range(50)
    ]


def test_variations_differ_and_keep_the_rare_word() -> None:
    rephraser = Rephraser.from_corpus(read_corpus())
    rng = dice(1)
    said = [rephraser.vary("콜드 스타트가 뭐예요?", rng) for _ in range(100)]
    assert len({fold(text) for text in said}) > 20
    assert all("콜드" in text for text in said)


def test_no_variation_is_empty() -> None:
    corpus = read_corpus()
    rephraser = Rephraser.from_corpus(corpus)
    rng = dice(2)
    assert all(rephraser.vary(question, rng).strip() for question, _ in corpus.trained_pairs())


def test_an_ending_changes_into_one_of_the_same_meaning() -> None:
    said = {change_ending("키를 만들 수 있나요?", dice(seed)) for seed in range(30)}
    assert len(said) > 3
    assert all(text.startswith("키를 만들 수 ") for text in said)


def test_a_word_is_common_only_when_many_entries_share_it() -> None:
    questions = [(str(entry), f"낱말{entry} 뭐예요?") for entry in range(4)]
    assert common_words(questions) == {"뭐예요"}
    assert common_words([("same", "낱말 뭐예요?")] * 9) == frozenset()


def test_most_strangers_are_asked_about_by_name() -> None:
    assert sum("화산" in ask_about_stranger(("화산",), dice(seed)) for seed in range(100)) > 60


def test_a_synonym_stands_for_a_whole_word_only() -> None:
    assert exchange("내일 비가 와요?", [["내", "제"]], dice(1)) == "내일 비가 와요?"
    assert {exchange("내 순서는?", [["내", "제"]], dice(seed)) for seed in range(9)} == {"내 순서는?", "제 순서는?"}
