"""A stream that breaks and goes on elsewhere is the uninterrupted one, wherever it breaks: the proof by a model of the engine."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.protocol import continuation
from gateway.protocol.chunk import fields_of
from gateway.protocol.continuation import CHAT, COMPLETIONS, Ask, End, Send
from gateway.protocol.openai import UsageWish
from gateway.protocol.recorder import Recorder
from gateway.protocol.sse import DATA, DONE, EventSplitter
from gateway.protocol.stream_reader import StreamReader
from gateway.protocol.usage import Usage
from tests.byte_engine import ByteEngine
from tests.vllm_stream import Generation

Json = dict[str, Any]
HANGUL = "안녕하세요! 대문은 한국어 모델의 큰 문이에요. 똠방각하 쀍 😀👩‍👩‍👧 끝\n"
wishes = st.sampled_from(UsageWish)
endpoints = st.sampled_from([CHAT, COMPLETIONS])


@dataclass
class Client:
    """One that streams, through a gateway whose replicas die: the first after so many bytes, and so on."""

    engine: ByteEngine
    endpoint: str
    wish: UsageWish
    fields: Json = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)
    sent: list[Json] = field(default_factory=list)

    def request(self) -> Send:
        prompt: Json = {"messages": []} if self.endpoint == CHAT else {"prompt": "문"}
        return Send(self.endpoint, json.dumps({"model": "daemun-demo"} | prompt | self.fields).encode())

    def reader(self) -> Recorder:
        request = self.request()
        plan = continuation.plan(self.endpoint, fields_of(DATA + request.body) or {})
        assert plan is not None
        return Recorder(self.wish, plan, again=request)

    def stream(self, *breaks: int) -> Recorder:
        """Read to the end, the replicas breaking off after so many bytes each."""
        reader = self.reader()
        step = reader.go_on()
        for replica, end in enumerate([*breaks, None]):
            assert isinstance(step, Send)
            self.sent.append(json.loads(step.body))
            self._read(reader, self._replica(step, replica)[:end])
            if reader.ended:
                break
            step = self._after_break(reader)
            if isinstance(step, End):
                self._get(reader, step.data)
                break
        return reader

    def _replica(self, request: Send, number: int) -> bytes:
        generation = self.engine.stream(request.path, request.body, "9f" + "x" * number)
        return b"".join(generation.events(UsageWish.EVERY_CHUNK, ids=True))

    def _read(self, reader: Recorder, data: bytes) -> None:
        for event in EventSplitter().feed(data):
            self._get(reader, reader.read(event))
            if reader.ended:
                break

    def _after_break(self, reader: Recorder) -> continuation.Step | None:
        step = reader.go_on()
        while isinstance(step, Ask):
            step = reader.go_on(self.engine.answer(step.path, step.body))
        return step

    def _get(self, reader: Recorder, piece: bytes) -> None:
        self.pieces.append(piece)
        reader.delivered()

    def got(self) -> list[bytes]:
        return EventSplitter().feed(b"".join(self.pieces))

    def uninterrupted(self) -> Generation:
        return self.engine.stream(self.endpoint, self.request().body, "9f")


def chunks_in(events: list[bytes]) -> list[Json]:
    """All of one stream, whichever that is: if the first replica said nothing, it is the second's."""
    chunks: list[Json] = [json.loads(event[len(DATA) :]) for event in events if event != DONE]
    streams = {(chunk.pop("id"), chunk.pop("created")) for chunk in chunks}
    assert len(streams) == 1
    assert events.count(DONE) == 1
    assert events[-1] == DONE
    return chunks


def substance(events: list[bytes]) -> list[Json]:
    """What a client makes of a stream: every chunk but those that say nothing, and without the fingerprint."""
    seen: list[Json] = []
    for chunk in chunks_in(events):
        chunk.pop("system_fingerprint", None)
        choice = chunk["choices"][0] if chunk["choices"] else {"finish_reason": "totals"}
        delta = choice.get("delta", {"content": choice.get("text")})
        if delta["content"] or "role" in delta or choice["finish_reason"]:
            seen.append(chunk)
    return seen


def check(client: Client, *breaks: int) -> Recorder:
    """It breaks there; the client sees what it would have seen, and the ledger too."""
    client.pieces.clear()
    whole = client.uninterrupted()
    reader = client.stream(*breaks)
    assert substance(client.got()) == substance(whole.events(client.wish))
    used = whole.used_after(len(whole.steps))
    assert (reader.usage().prompt_tokens, reader.usage().completion_tokens) == (used.prompt_tokens, used.completion_tokens)
    return reader


@st.composite
def engines(draw: st.DrawFn, *, merged: bool = False) -> ByteEngine:
    """A text, mostly Hangul, in tokens of one to four bytes that do not care for characters."""
    pieces = st.sampled_from([*HANGUL.split(" "), " ", "가", "가나", "\ufffd"]) | st.text(max_size=3)
    text = "".join(draw(st.lists(pieces, min_size=1, max_size=6))) or "말"
    data = text.encode(errors="replace")
    words: list[bytes] = []
    while data:
        size = draw(st.integers(1, 4))
        words.append(data[:size])
        data = data[size:]
    merges = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)) if merged else [1]
    return ByteEngine(tuple(words), tuple(merges))


def event_ends(client: Client) -> list[int]:
    """Where the engine's first stream can be cut between events; 0 and the whole included."""
    ends = [0]
    for event in client.uninterrupted().events(UsageWish.EVERY_CHUNK, ids=True):
        ends.append(ends[-1] + len(event))
    return ends


@given(engines(merged=True), endpoints, wishes, st.integers(1, 30))
def test_stream_that_breaks_anywhere_is_the_uninterrupted_one(
    engine: ByteEngine, endpoint: str, wish: UsageWish, limit: int
) -> None:
    """At every event boundary. Chunks may hold several tokens and end in the middle of a character."""
    client = Client(engine, endpoint, wish, {"max_tokens": limit})
    for end in event_ends(client):
        if engine.merges == (1,):
            check(client, end)
        else:
            same_text(client, end)


def same_text(client: Client, *breaks: int) -> None:
    """As `check`, for chunks of several tokens: the same text and counts, not in the same chunks."""
    client.pieces.clear()
    whole = client.uninterrupted()
    reader = client.stream(*breaks)
    assert told(client.got()) == told(whole.events(client.wish))
    assert reader.usage() == whole.used_after(len(whole.steps))


def told(events: list[bytes]) -> tuple[object, ...]:
    """Text, what the stream is, roles, finish and stop reason, totals, last counts, ids."""
    chunks = chunks_in(events)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    deltas = [choice.get("delta", {"content": choice.get("text")}) for choice in choices]
    return (
        "".join(delta["content"] for delta in deltas),
        {(chunk["object"], chunk["model"]) for chunk in chunks},
        [delta["role"] for delta in deltas if "role" in delta],
        [(choice["finish_reason"], choice["stop_reason"]) for choice in choices if choice["finish_reason"]],
        [chunk["usage"] for chunk in chunks if not chunk["choices"]],
        chunks[-1].get("usage"),
        [choice["token_ids"] for choice in choices if choice.get("token_ids")],
    )


@given(engines(), endpoints, wishes, st.booleans(), st.data())
def test_stream_with_stop_strings_breaks_anywhere(
    engine: ByteEngine, endpoint: str, wish: UsageWish, included: bool, data: st.DataObject
) -> None:
    """What the dead replica held back is said by the next, and a stop string that begins before the break ends after it."""
    text = b"".join(engine.words).decode(errors="replace")
    strings = []
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(text) - 1))
        strings.append(text[begin : begin + data.draw(st.integers(1, 5))])
    strings.append(data.draw(st.sampled_from(["없음", "가가가", "\n\n"])))
    fields: Json = {"max_tokens": 60, "stop": strings, "include_stop_str_in_output": included}
    fields["min_tokens"] = data.draw(st.integers(0, 12))
    client = Client(engine, endpoint, wish, fields)
    for end in event_ends(client):
        check(client, end)


@given(engines(merged=True), endpoints, wishes, st.lists(st.integers(0, 4_000), max_size=5), st.data())
def test_stream_that_breaks_again_and_again_goes_on(
    engine: ByteEngine, endpoint: str, wish: UsageWish, breaks: list[int], data: st.DataObject
) -> None:
    """In the middle of events too: what came of them is thrown away."""
    fields: Json = {"max_tokens": 60}
    if engine.merges == (1,) and data.draw(st.booleans()):
        text = b"".join(engine.words).decode(errors="replace")
        fields["stop"] = text[-3:]
    same_text(Client(engine, endpoint, wish, fields), *breaks)


@settings(max_examples=20)
@given(engines(), endpoints, st.integers(0, 60), st.integers(1, 60))
def test_shortest_answer_is_counted_from_the_beginning(engine: ByteEngine, endpoint: str, shortest: int, limit: int) -> None:
    client = Client(engine, endpoint, UsageWish.FINAL, {"min_tokens": min(shortest, limit), "max_tokens": limit})
    for end in event_ends(client):
        check(client, end)


TALK = ByteEngine(tuple(character.encode() for character in "안녕하세요. 대문입니다."))


def test_chat_without_a_limit_goes_on_to_the_end_of_the_models_context() -> None:
    engine = ByteEngine(TALK.words, max_model_len=12)
    client = Client(engine, CHAT, UsageWish.FINAL)
    for end in event_ends(client):
        reader = check(client, end)
        assert reader.usage() == Usage(3, 9)
    assert set(engine.asked) == {"/detokenize", "/tokenize"}


def test_completion_without_a_limit_has_the_engines_default() -> None:
    engine = ByteEngine(tuple(b"%d" % (number % 10) for number in range(30)))
    client = Client(engine, COMPLETIONS, UsageWish.FINAL)
    for end in event_ends(client):
        assert check(client, end).usage() == Usage(3, 16)
    assert "/tokenize" not in engine.asked


def test_what_was_kept_is_the_prompt_of_the_next_request() -> None:
    fields = {"max_completion_tokens": 40, "max_tokens": 5, "temperature": 0.25, "seed": 7, "min_tokens": 4, "user": "me"}
    client = Client(TALK, CHAT, UsageWish.NONE, fields)
    check(client, event_ends(client)[4])
    first, second = client.sent
    assert first == {"messages": [], "model": "daemun-demo"} | fields
    kept = second.pop("prompt")
    assert kept[:3] == [3, 7, 7]
    assert TALK.decode(kept[3:]) == "안녕하"
    assert second == {
        "model": "daemun-demo",
        "temperature": 0.25,
        "max_tokens": 37,
        "min_tokens": 1,
        "seed": 10,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "return_token_ids": True,
    }


def test_counts_are_whole_when_the_client_leaves_during_a_continuation() -> None:
    client = Client(TALK, CHAT, UsageWish.NONE)
    ends = event_ends(client)
    reader = client.reader()
    client._read(reader, client._replica(reader.go_on(), 0)[: ends[5]])  # type: ignore[arg-type]
    assert reader.usage() == Usage(3, 4)
    step = client._after_break(reader)
    assert isinstance(step, Send)
    assert reader.usage() == Usage(3, 4)
    client._read(reader, client._replica(step, 1)[:1200])
    got = client.got()
    assert reader.usage() == Usage(3, len(got) - 1)
    assert len(got) > 6


def test_same_request_is_sent_again_until_something_was_said() -> None:
    """The role alone is nothing; it is not said twice."""
    for endpoint in (CHAT, COMPLETIONS):
        client = Client(TALK, endpoint, UsageWish.NONE)
        check(client, event_ends(client)[1 if endpoint == CHAT else 0])
        first, second = client.sent
        assert first == second


def events_of(*texts: str) -> list[bytes]:
    client = Client(ByteEngine(tuple(text.encode() for text in texts)), CHAT, UsageWish.NONE)
    return client.uninterrupted().events(UsageWish.EVERY_CHUNK, ids=True)


def recorder(**fields: object) -> Recorder:
    return Client(TALK, CHAT, UsageWish.NONE, dict(fields)).reader()


@pytest.mark.parametrize(
    "delta",
    [b'{"tool_calls":[{"index":0}]}', b'{"reasoning":"\xec\x9d\x8c"}', b'{"content":"\xec\x9d\x8c","reasoning":"\xec\x9d\x8c"}'],
)
def test_half_a_thought_or_tool_call_cannot_go_on(delta: bytes) -> None:
    role, first, second, *_ = events_of("가", "나")
    half = [event.replace(f'{{"content":"{text}"}}'.encode(), delta) for event, text in ((first, "가"), (second, "나"))]
    for said in ([role, half[0]], [role, first, half[1]]):
        reader = recorder()
        for event in said:
            reader.read(event)
        assert reader.go_on() is None


def test_answer_goes_on_once_its_thinking_is_over() -> None:
    role, first, second, third, *_ = events_of("가", "나", "다")
    reader = recorder()
    for event in (role, first.replace(b'"content"', b'"reasoning"'), second):
        reader.read(event)
    assert isinstance(reader.go_on(), Ask)
    reader.read(third.replace(b'"content"', b'"reasoning"'))
    assert reader.go_on() is None


def test_logprobs_and_missing_ids_cannot_go_on() -> None:
    role, first, *_ = events_of("가", "나")
    for event in (first.replace(b'"logprobs":null', b'"logprobs":{"content":[]}'), first.replace(b"[1000]", b"null")):
        reader = recorder()
        reader.read(role)
        reader.read(event)
        assert reader.go_on() is None


@pytest.mark.parametrize("answer", [b"<html>", b"{}", b'{"prompt":"\xeb\x8b\xa4\xeb\xa5\xb8 \xea\xb8\x80"}', b'{"prompt":5}'])
def test_ids_that_do_not_say_what_was_said_cannot_go_on(answer: bytes) -> None:
    reader = recorder()
    for event in events_of("가", "나")[:2]:
        reader.read(event)
    assert isinstance(reader.go_on(), Ask)
    assert reader.go_on(answer) is None


def test_special_tokens_at_the_end_of_a_chunk_are_made_again() -> None:
    """They are in the ids' text and were not said."""
    role, first, *_ = events_of("가", "나")
    reader = recorder()
    reader.read(role)
    reader.read(first.replace(b"[1000]", b"[1000,9]"))
    step = reader.go_on()
    assert isinstance(step, Ask)
    assert json.loads(step.body)["tokens"] == [1000, 9]
    step = reader.go_on('{"prompt":"가<think>"}'.encode())
    assert isinstance(step, Ask)
    assert json.loads(step.body)["tokens"] == [1000]
    step = reader.go_on('{"prompt":"가"}'.encode())
    assert isinstance(step, Ask)
    step = reader.go_on(b'{"max_model_len":99}')
    assert isinstance(step, Send)
    assert json.loads(step.body)["prompt"] == [3, 7, 7, 1000]


def test_special_tokens_in_the_middle_of_a_chunk_do_no_harm() -> None:
    """Unless the text might be late: then it cannot be told from that."""
    role, first, *_ = events_of("가나", "나")
    for fields, expected in (({}, Ask), ({"stop": "끝"}, type(None))):
        reader = recorder(**fields)
        reader.read(role)
        reader.read(first.replace(b"[1000]", b"[1000,9,1001]"))
        reader.go_on()
        step = reader.go_on('{"prompt":"가<think>나"}'.encode())
        while isinstance(step, Ask) and step.path == "/detokenize":
            step = reader.go_on('{"prompt":"가<think>"}'.encode())
        assert isinstance(step, expected)


def test_tokens_behind_the_stop_string_of_a_long_chunk_do_not_count() -> None:
    """Every token is a character here, so that the estimate is exact."""
    engine = ByteEngine(tuple(character.encode() for character in "가나다라마바사아자차카타파하"), merges=(1, 1, 8))
    client = Client(engine, CHAT, UsageWish.FINAL, {"max_tokens": 40, "stop": ["바사"]})
    reader = client.stream(event_ends(client)[3])
    assert reader.usage() == Usage(3, 7)
    assert told(client.got())[0] == "가나다라마"


def test_engine_that_generates_past_a_stop_string_is_to_be_left() -> None:
    client = Client(TALK, CHAT, UsageWish.NONE, {"max_tokens": 40, "stop": ["입니"]})
    reader = client.stream()
    assert (reader.ended, reader.stopped) == (True, False)
    assert "stop" in client.sent[0]
    reader = client.stream(event_ends(client)[5])
    assert (reader.ended, reader.stopped) == (True, True)
    assert "stop" not in client.sent[-1]


def test_used_up_limit_ends_the_stream() -> None:
    """vLLM would have said so in the last chunk; another engine might not."""
    reader = recorder(max_tokens=1, stop=["나다"])
    for event in events_of("하나", "나")[:2]:
        reader.read(event.replace("하나".encode(), "하".encode()))
    reader.go_on()
    step = reader.go_on('{"prompt":"하나"}'.encode())
    assert isinstance(step, End)
    finish, done = EventSplitter().feed(step.data)
    assert json.loads(finish[len(DATA) :])["choices"] == [
        {
            "index": 0,
            "delta": {"content": "나"},
            "logprobs": None,
            "finish_reason": "length",
            "stop_reason": None,
            "token_ids": None,
        }
    ]
    assert done == DONE


ENGINE_DIED = b'data: {"error":{"message":"EngineCore died","type":"InternalServerError","code":500}}\n\n'
REFUSED = b'data: {"error":{"message":"no","type":"BadRequestError","code":400}}\n\n'


def test_engine_that_says_it_failed_is_a_break() -> None:
    role, first, *_ = events_of("가", "나")
    reader = recorder()
    assert [reader.read(event) for event in (role, first, ENGINE_DIED, DONE)][2:] == [b"", b""]
    assert reader.broken
    assert not reader.ended
    assert isinstance(reader.go_on(), Ask)
    assert reader.rest() == ENGINE_DIED + DONE
    assert reader.ended


def test_engine_that_refuses_in_the_stream_is_no_break() -> None:
    reader = recorder()
    assert reader.read(REFUSED) == REFUSED
    assert not reader.broken


def test_aborted_by_an_engine_that_shuts_down_is_a_break() -> None:
    role, first, second, *_ = events_of("가", "나")
    abort = second.replace(b'"finish_reason":null', b'"finish_reason":"abort","stop_reason":null')
    reader = recorder()
    assert [bool(reader.read(event)) for event in (role, first, abort, DONE)] == [True, True, False, False]
    assert reader.broken
    assert isinstance(reader.go_on(), Ask)
    rest = reader.rest()
    assert b'"finish_reason":"abort"' in rest
    assert b"usage" not in rest
    assert rest.endswith(DONE)


def test_call_that_cannot_go_on_is_sent_again_while_nothing_was_said() -> None:
    again = Send(CHAT, b"{}")
    role, first, *_ = events_of("가")
    reader = StreamReader(UsageWish.NONE, again=again)
    assert reader.go_on() == again
    said = reader.read(role)
    assert reader.go_on() == again
    new = [event.replace(b"chatcmpl-9f", b"chatcmpl-new") for event in (b": wait\n\n", role, first)]
    out = said + b"".join(reader.read(event) for event in new)
    assert out.count(b'"role"') == 1
    assert b"new" not in out
    assert ": wait\n\n" in out.decode()
    assert reader.go_on() is None


def test_role_chunks_are_said_once_for_each_choice() -> None:
    first, second, said = (
        b'data: {"id":"%b","choices":[{"index":%d,"delta":{"role":"assistant","content":""}}]}\n\n',
        b'data: {"id":"%b","choices":[{"index":%d,"delta":{"role":"assistant","content":""}}]}\n\n',
        b'data: {"id":"%b","choices":[{"index":%d,"delta":{"content":"a"}}]}\n\n',
    )
    reader = StreamReader(UsageWish.NONE, single_choice=False, n=2, again=Send(CHAT, b"{}"))
    reader.read(first % (b"old", 0))
    reader.go_on()
    assert reader.read(first % (b"new", 0)) == b""
    assert reader.read(second % (b"new", 1)) == second % (b"old", 1)
    assert reader.read(said % (b"new", 0)) == said % (b"old", 0)


def test_stream_that_has_ended_has_nothing_to_go_on_with() -> None:
    reader = StreamReader(UsageWish.NONE)
    reader.read(DONE)
    assert reader.go_on() == End(b"")
