"""Says a question differently: the variations the demo model is trained on.

Pure and seeded: the same random.Random gives the same variation. People ask one thing in many ways; some eight hundred trained
questions cannot show them all, so each is shown anew every time, with another ending, particle, filler, synonym or a common word
missing. It knows general Korean, not the held-out questions, and never touches an answer.
"""

import random
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from serving.demo.corpus import Corpus, is_korean


def groups_of(*lines: str) -> list[list[str]]:
    """Groups of words that may stand for each other, each written as one|two|three."""
    return [line.split("|") for line in lines]


(FILLERS,) = groups_of(
    "혹시|저기|저기요,|궁금한데|안녕하세요,|음,|그런데|근데|질문이 있는데요,|실례지만|하나 여쭤볼게요.|있잖아,"
)
(ASIDES,) = groups_of("좀|정말|도대체|정확히|대체|지금|제가|저는|그|한번|더|요즘|이렇게|잘")
(CLOSINGS,) = groups_of("궁금해요.|알고 싶어요.|알려 줄래요?|알려 줄 수 있어요?|궁금합니다.|가르쳐 줘.|말해 줘.")

# Ways to end a sentence that mean the same. Each group is tried in order, the first that fits is exchanged.
ENDINGS = groups_of(
    "이 뭐예요|은 뭐예요|이 뭔가요|은 무엇인가요|이 무엇인가요|이 뭐야|이 뭐죠|이 무엇입니까|이란 무엇인가요|이 뭔지 알려 주세요|"
    "이 뭔지 궁금해요|이라는 게 뭐예요|을 설명해 주세요|"
    "에 대해 알려 주세요|을 설명해 줘|은 무슨 뜻이에요|이 무슨 뜻인가요|은 어떤 거예요",
    "가 뭐예요|는 뭐예요|가 뭔가요|는 무엇인가요|가 무엇인가요|가 뭐야|가 뭐죠|가 무엇입니까|란 무엇인가요|가 뭔지 알려 주세요|"
    "가 뭔지 궁금해요|라는 게 뭐예요|를 설명해 주세요|"
    "에 대해 알려 주세요|를 설명해 줘|는 무슨 뜻이에요|가 무슨 뜻인가요|는 어떤 거예요",
    "뭐예요|뭔가요|무엇인가요|뭐야|뭐죠|무엇입니까|뭔지 알려 주세요|뭔지 궁금해요|뭐지|무엇이죠",
    "어떻게 해요|어떻게 하나요|어떻게 하죠|어떻게 하면 돼요|어떻게 해야 하나요|어떡하죠|어떡해요|어떻게 합니까|방법이 있나요",
    "어떻게 돼요|어떻게 되나요|어떻게 되죠|무슨 일이 생겨요|어떻게 됩니까|무슨 일이 일어나나요",
    "할 수 있어요|할 수 있나요|할 수 있습니까|할 수 있을까요|할 수 있어|해도 돼요|가능한가요",
    "쓸 수 있나요|쓸 수 있어요|사용할 수 있나요|써도 되나요|써도 돼요|이용할 수 있을까요|쓸 수 있을까요",
    "알려 주세요|알려 줘|가르쳐 주세요|설명해 주세요|말해 주세요|알려 줄래요|설명해 줘|"
    "알려 주실 수 있나요|알고 싶어요|궁금해요|소개해 줘",
    "궁금해요|궁금합니다|알고 싶어요|알고 싶습니다|궁금하네요",
    "무슨 뜻이에요|무슨 뜻인가요|무슨 뜻이야|무슨 의미예요|무엇을 뜻하나요|무슨 말이에요|무슨 의미죠",
    "있어요|있나요|있습니까|있을까요|있어|있죠",
    "되나요|돼요|될까요|됩니까|되죠|돼",
    "하나요|해요|합니까|하죠|해|할까요|하는 거예요|하는지 알려 주세요",
    "인가요|이에요|입니까|이야|일까요|이죠",
    "나와요|나오나요|나옵니까|나오죠|나와|나오는 건가요",
    "주세요|줘|줄래|줄래요|주실래요|주시겠어요",
    "써요|쓰나요|쓰죠|사용하나요|사용해요|이용하나요",
)

# Words that mean the same wherever they stand.
SYNONYMS = groups_of(
    *["무엇|뭐|어떤 것", "이유|까닭|원인", "오류|에러", "뜻|의미", "차이|다른 점", "방법|길", "왜|어째서|무엇 때문에"],
    *["만들었|개발했", "실행|가동", "질문|물음", "복제본|레플리카", "명령|명령어|커맨드", "회사|기업", "서비스하|제공하"],
    *["너는|넌|당신은|네가", "오늘|오늘은", "너무|정말|아주", "추천해|골라|정해", "그래픽 카드|GPU", "쿠버네티스|Kubernetes"],
    *["확인하|알아보", "결정해|정해", "필요|있어야", "어떻게|어떤 방식으로|어떤 식으로", "한국어 모델|국산 모델"],
    *["daemun|대문", "기다리|대기하", "내|제", "돌려|실행해", "사람|사용자", "요청|리퀘스트", "어떤|무슨"],
)

NEGATIONS = frozenset(["안", "못", "없는", "없이", "말고"])

# A particle may be another or missing: the last syllable of a word of three or more.
PARTICLES = ["은", "는", "이", "가", "을", "를", "도", "의", "에", "란", "이란", "라는", "이라는"]
(STRANGER_FRAMES,) = groups_of(
    "{} 뭐예요?|{}에 대해 알려 주세요.|{} 어떻게 해요?|{} 무슨 뜻이에요?|{} 좀 설명해 줘.|{} 추천해 주세요.|{} 얼마예요?|"
    "왜 {} 필요해요?|{} 누가 만들었어요?|{} 잘하는 법을 알려 줘.|{} 좋아해?|{} 어디에 있나요?|{} 종류를 알려 주세요."
)
SUMS = ["+", "-", "*", " 더하기 ", " 나누기 "]
SUM_ENDS = ["은?", "는?", " 계산해 줘", "=?"]
KEYS = "asdfjklqwertyuiopㅁㄴㅇㄹㅂㅈㄷㄱ"


@dataclass(frozen=True)
class Rephraser:
    """Varies questions. `common` are the words that say little about which answer is wanted, so that they may be dropped."""

    common: frozenset[str]

    @classmethod
    def from_corpus(cls, corpus: Corpus) -> "Rephraser":
        return cls(common_words((entry.id, question) for entry in corpus.entries.values() for question in entry.questions))

    def vary(self, question: str, rng: random.Random) -> str:
        """A different way to ask the same. English and very short questions change only in their signs."""
        text = question
        if is_korean(text) and len(text) > 3:
            if rng.random() < 0.3:
                text = exchange(text, SYNONYMS, rng)
            if rng.random() < 0.5:
                text = change_ending(text, rng)
            words = [self._vary_word(word, rng) for word in text.split()]
            words = self._reorder([word for word in words if word], rng)
            if rng.random() < 0.15:
                words.insert(rng.randint(0, len(words)), rng.choice(ASIDES))
            if rng.random() < 0.2:
                words.insert(0, rng.choice(FILLERS))
            if question.endswith("?") and rng.random() < 0.1:
                words.append(rng.choice(CLOSINGS))
            text = " ".join(words) or question
            if rng.random() < 0.05:
                text = text.replace(" ", "")
        return change_signs(text, rng)

    def _vary_word(self, word: str, rng: random.Random) -> str:
        bare = word.rstrip("?.!,")
        if bare in self.common and rng.random() < 0.15:
            return ""
        if len(bare) >= 3 and rng.random() < 0.25:
            for particle in sorted(PARTICLES, key=len, reverse=True):
                if bare.endswith(particle) and len(bare) - len(particle) >= 2:
                    return bare.removesuffix(particle) + (rng.choice(PARTICLES) if rng.random() < 0.6 else "")
        return word

    def _reorder(self, words: list[str], rng: random.Random) -> list[str]:
        if len(words) > 2 and rng.random() < 0.1:
            at = rng.randrange(len(words) - 1)
            words[at], words[at + 1] = words[at + 1], words[at]
        return words


def dice(seed: int) -> random.Random:
    """A random source that gives the same numbers every time."""
    return random.Random(seed)  # noqa: S311 - a seed is wanted, not a secret


def common_words(questions: Iterable[tuple[str, str]], least: int = 4) -> frozenset[str]:
    """Korean words that stand in the questions of at least so many entries, but for those that deny.

    `questions` are pairs of entry id and question.
    """
    entries: dict[str, set[str]] = defaultdict(set)
    for entry, question in questions:
        for word in question.split():
            entries[word.rstrip("?.!,")].add(entry)
    return frozenset(word for word, where in entries.items() if len(where) >= least and is_korean(word) and word not in NEGATIONS)


def change_ending(text: str, rng: random.Random) -> str:
    """The sentence with another ending of the same meaning, where one is known."""
    bare = text.rstrip("?.! ")
    for group in ENDINGS:
        for ending in sorted(group, key=len, reverse=True):
            if bare.endswith(ending) and len(bare) > len(ending):
                return bare.removesuffix(ending) + rng.choice(group) + "?"
    return text


def exchange(text: str, groups: list[list[str]], rng: random.Random) -> str:
    """One word exchanged for another that means the same, if any is there.

    A word counts at the start of a written word, so that particles may follow; a
    single syllable only by itself: 내 is not in 내일.
    """
    found = [(group, pattern) for group in groups for word in group if (pattern := _word(word)).search(text)]
    if not found:
        return text
    group, pattern = rng.choice(found)
    return pattern.sub(rng.choice(group), text, count=1)


@cache
def _word(word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\S){re.escape(word)}" + (r"(?!\S)" if len(word) == 1 else ""))


def change_signs(text: str, rng: random.Random) -> str:
    """The same words with other or no punctuation at the end."""
    chance = rng.random()
    if chance < 0.25:
        return text.rstrip("?.! ") or text
    if chance < 0.35:
        return (text.rstrip("?.! ") or text) + rng.choice(["?", ".", "!", "??", "~"])
    return text


def ask_about_stranger(strangers: tuple[str, ...], rng: random.Random) -> str:
    """A question in a well-known frame about something the model does not know; now and then a sum or nonsense."""
    chance = rng.random()
    if chance < 0.1:
        return f"{rng.randint(2, 999)}{rng.choice(SUMS)}{rng.randint(2, 99)}{rng.choice(SUM_ENDS)}"
    if chance < 0.2:
        return "".join(rng.choice(KEYS) for _ in range(rng.randint(3, 9)))
    return rng.choice(STRANGER_FRAMES).format(rng.choice(strangers) + rng.choice(["", "", "이", "가", "은", "는", "을", "를"]))
