"""The simulated engine writes what vLLM writes, whatever is asked for, and however many tokens come at once."""

from __future__ import annotations

import json
from itertools import accumulate, product

import pytest

from gateway.protocol.openai import UsageWish
from loadtests import sim_answer
from loadtests.sim_answer import StreamWriter, text_of
from loadtests.sim_request import Asked
from tests.vllm_stream import Generation, Step


def asked(*, chat: bool, wish: UsageWish, ids: bool, output: int = 7, first_word: int = 0) -> Asked:
    return Asked(
        chat=chat,
        prompt_tokens=5,
        output_tokens=output,
        finish="length",
        stream=True,
        usage_at_end=wish is not UsageWish.NONE,
        usage_on_each=wish is UsageWish.EVERY_CHUNK,
        token_ids=ids,
        first_word=first_word,
    )


def events_in(answer: bytes) -> list[bytes]:
    """The events of a chunked answer, each framed by itself, up to the end."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    events = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        event, body = rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        events.append(event)
    assert events.pop() == b""
    return events


@pytest.mark.parametrize(("chat", "wish", "ids", "first_word"), list(product((True, False), UsageWish, (True, False), (0, 40))))
def test_stream_is_vllms_byte_for_byte(chat: bool, wish: UsageWish, ids: bool, first_word: int) -> None:
    counts = (1, 2, 4)
    writer = StreamWriter(asked(chat=chat, wish=wish, ids=ids, first_word=first_word), "chatcmpl-9f" if chat else "cmpl-9f", "m")
    reached = list(accumulate(counts))
    pieces = [writer.more(tokens, last=tokens == reached[-1]) for tokens in reached]
    steps = []
    for count, end in zip(counts, reached, strict=True):
        first = first_word + end - count
        said = {"content" if chat else "text": text_of(first, count)}
        finish = "length" if end == reached[-1] else None
        steps.append(Step(0, count, said, finish=finish, ids=tuple(range(1000 + first, 1000 + first + count))))
    generation = Generation(chat, 1, (5,), tuple(steps), fingerprint=sim_answer.FINGERPRINT, model="m")
    assert events_in(writer.begin() + b"".join(pieces)) == generation.events(wish, ids=ids)


@pytest.mark.parametrize("chat", [True, False])
def test_whole_answer_has_the_words_and_the_counts_of_the_stream(chat: bool) -> None:
    whole = sim_answer.whole(asked(chat=chat, wish=UsageWish.NONE, ids=True), "id", "m")
    head, _, body = whole.partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head
    answer = json.loads(body)
    choice = answer["choices"][0]
    assert (choice["message"]["content"] if chat else choice["text"]) == text_of(0, 7)
    assert choice["token_ids"] == list(range(1000, 1007))
    assert answer["usage"] == {"prompt_tokens": 5, "total_tokens": 12, "completion_tokens": 7}
