"""Two real replicas, one of them killed in mid-stream: the client reads one stream, and its text is the uninterrupted one."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest

from tests.e2e.stack import MODEL, Stack, stack, until

QUESTIONS = ("GPU가 왜 부족해요?", "대문이 뭐예요?", "양자화가 뭐예요?", "대기열이 왜 필요해요?", "할 수 있는 게 뭐예요?")
BACK_S = 180.0


@pytest.fixture(scope="module")
def two_replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("pair"), SERVING__REPLICAS=f'{{"{MODEL}": 2}}') as running:
        running.wait_until_ready()
        yield running


@dataclass
class Stream:
    """What a client reads of a greedy stream; `after` so many chunks something is done."""

    text: str
    ids: set[str]
    finishes: list[str]
    usage: Any
    entry: dict[str, Any]


def ask(daemun: Stack, *, chat: bool, question: str, after: int = 0, do: Callable[[], object] = lambda: None) -> Stream:
    asked: dict[str, Any] = {"model": MODEL, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
    with openai.OpenAI(base_url=f"{daemun.url}/v1", api_key=daemun.key, max_retries=0) as client:
        raw: Any = (
            client.chat.completions.with_raw_response.create(**asked, messages=[{"role": "user", "content": question}])
            if chat
            else client.completions.with_raw_response.create(**asked, prompt=question, max_tokens=100)
        )
        chunks = []
        for chunk in raw.parse():
            chunks.append(chunk)
            if len(chunks) == after:
                do()
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    return Stream(
        "".join((choice.delta.content if chat else choice.text) or "" for choice in choices),
        {chunk.id for chunk in chunks},
        [choice.finish_reason for choice in choices if choice.finish_reason],
        chunks[-1].usage,
        daemun.entry(raw.headers["x-request-id"]),
    )


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "completion"])
def test_stream_survives_the_death_of_its_replica(two_replicas: Stack, chat: bool) -> None:
    daemun = two_replicas
    until(lambda: len(daemun.replicas()) == 2, BACK_S, "two replicas")
    whole = max((ask(daemun, chat=chat, question=question) for question in QUESTIONS), key=lambda stream: len(stream.text))
    question = next(question for question in QUESTIONS if ask(daemun, chat=chat, question=question).text == whole.text)
    # The replica that has the prompt in its cache gets it again; the entry of the last time says which that is.
    dying = ask(daemun, chat=chat, question=question).entry["replica"]
    process = daemun.replica_process(dying)

    broken = ask(daemun, chat=chat, question=question, after=6, do=lambda: process.send_signal(signal.SIGKILL))

    print(f"\nkilled {dying} after 6 chunks; {broken.entry['replica']} went on to {broken.usage.completion_tokens} tokens")  # noqa: T201
    assert broken.entry["replica"] != dying, "the stream was over before its replica was dead"
    assert broken.text == whole.text
    assert len(broken.ids) == 1
    assert broken.finishes == whole.finishes
    assert (broken.usage.prompt_tokens, broken.usage.completion_tokens) == (
        whole.usage.prompt_tokens,
        whole.usage.completion_tokens,
    )
    entry = broken.entry
    assert (entry["outcome"], entry["completion_tokens"]) == ("completed", whole.usage.completion_tokens)
