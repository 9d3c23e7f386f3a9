"""The official `openai` and `anthropic` clients against a real stack, sync, async and streaming, with the ledger beside them."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.stack import MODEL, Stack, until

QUESTION = "GPU가 왜 부족해요?"
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": QUESTION}]
ASKED: list[anthropic.types.MessageParam] = [{"role": "user", "content": QUESTION}]
LONG = {"ignore_eos": True}
GREEDY = {"temperature": 0}


@pytest.fixture
async def aclient(daemun: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{daemun.url}/v1", api_key=daemun.key, max_retries=0) as made:
        yield made


@pytest.fixture
def claude(daemun: Stack) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=daemun.url, api_key=daemun.key, max_retries=0) as made:
        yield made


@pytest.fixture
async def aclaude(daemun: Stack) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=daemun.url, api_key=daemun.key, max_retries=0) as made:
        yield made


def check(daemun: Stack, headers: Any, *, prompt: int, completion: int, endpoint: str, stream: bool) -> None:
    """The call's ledger entry says what the client was told."""
    entry = daemun.entry(headers["x-request-id"])
    assert (entry["prompt_tokens"], entry["completion_tokens"]) == (prompt, completion)
    assert (entry["endpoint"], entry["stream"], entry["outcome"], entry["model"]) == (endpoint, stream, "completed", MODEL)
    assert completion > 3


async def test_chat_says_the_same_by_every_way_of_asking(
    daemun: Stack, client: openai.OpenAI, aclient: openai.AsyncOpenAI
) -> None:
    usage = {"include_usage": True}
    texts = []
    whole = client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES, temperature=0)
    awhole = await aclient.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES, temperature=0)
    for raw in (whole, awhole):
        answer = raw.parse()
        assert answer.usage is not None
        texts.append(answer.choices[0].message.content)
        check(
            daemun,
            raw.headers,
            prompt=answer.usage.prompt_tokens,
            completion=answer.usage.completion_tokens,
            endpoint="/v1/chat/completions",
            stream=False,
        )
    stream = client.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        temperature=0,
        stream=True,
        stream_options=usage,  # type: ignore[call-overload]
    )
    chunks = list(stream)
    astream = await aclient.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        temperature=0,
        stream=True,
        stream_options=usage,  # type: ignore[call-overload]
    )
    achunks = [chunk async for chunk in astream]
    for got, headers in ((chunks, stream.response.headers), (achunks, astream.response.headers)):
        texts.append("".join(chunk.choices[0].delta.content or "" for chunk in got if chunk.choices))
        check(
            daemun,
            headers,
            prompt=got[-1].usage.prompt_tokens,
            completion=got[-1].usage.completion_tokens,
            endpoint="/v1/chat/completions",
            stream=True,
        )
    assert len(set(texts)) == 1
    assert texts[0]


async def test_text_completions_stream_and_do_not(client: openai.OpenAI, aclient: openai.AsyncOpenAI) -> None:
    whole = client.completions.create(model=MODEL, prompt="대문은", max_tokens=12, temperature=0)
    stream = await aclient.completions.create(model=MODEL, prompt="대문은", max_tokens=12, temperature=0, stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == whole.choices[0].text


async def test_responses_say_and_count_the_same_by_every_way_of_asking(
    daemun: Stack, client: openai.OpenAI, aclient: openai.AsyncOpenAI
) -> None:
    whole = client.responses.with_raw_response.create(model=MODEL, input=QUESTION, temperature=0)
    answer = whole.parse()
    assert answer.usage is not None
    expected: dict[str, Any] = {
        "prompt": answer.usage.input_tokens,
        "completion": answer.usage.output_tokens,
        "endpoint": "/v1/responses",
    }
    check(daemun, whole.headers, **expected, stream=False)
    awhole = await aclient.responses.create(model=MODEL, input=QUESTION, temperature=0, store=False)
    assert awhole.output_text == answer.output_text
    stream = client.responses.create(model=MODEL, input=QUESTION, temperature=0, stream=True)
    events = list(stream)
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == answer.output_text
    assert events[-1].type == "response.completed"
    assert events[-1].response.usage is not None
    assert events[-1].response.usage.output_tokens == answer.usage.output_tokens
    check(daemun, stream.response.headers, **expected, stream=True)
    async with aclient.responses.stream(model=MODEL, input=QUESTION, temperature=0) as astream:
        async for _ in astream:
            pass
        assert (await astream.get_final_response()).output_text == answer.output_text


async def test_messages_say_and_count_the_same_by_every_way_of_asking(daemun: Stack, claude: Any, aclaude: Any) -> None:
    whole = claude.messages.with_raw_response.create(model=MODEL, messages=ASKED, max_tokens=100, extra_body=GREEDY)
    answer = whole.parse()
    text = answer.content[0].text
    expected = {"prompt": answer.usage.input_tokens, "completion": answer.usage.output_tokens, "endpoint": "/v1/messages"}
    check(daemun, whole.headers, **expected, stream=False)
    awhole = await aclaude.messages.create(model=MODEL, messages=ASKED, max_tokens=100, extra_body=GREEDY)
    assert awhole.content[0].text == text
    with claude.messages.stream(model=MODEL, messages=ASKED, max_tokens=100, extra_body=GREEDY) as stream:
        assert "".join(stream.text_stream) == text
        assert stream.get_final_message().usage.output_tokens == answer.usage.output_tokens
        headers = stream.response.headers
    check(daemun, headers, **expected, stream=True)
    raw = await aclaude.messages.create(model=MODEL, messages=ASKED, max_tokens=100, extra_body=GREEDY, stream=True)
    deltas = [event.delta.text async for event in raw if event.type == "content_block_delta"]
    assert "".join(deltas) == text


def test_tokens_are_counted_before_a_message_is_sent_and_cost_nothing(daemun: Stack, claude: anthropic.Anthropic) -> None:
    counted = claude.messages.with_raw_response.count_tokens(model=MODEL, messages=ASKED)
    sent = claude.messages.create(model=MODEL, messages=ASKED, max_tokens=1)
    assert counted.parse().input_tokens == sent.usage.input_tokens
    entry = daemun.entry(counted.headers["x-request-id"])
    assert (entry["endpoint"], entry["outcome"]) == ("/v1/messages/count_tokens", "completed")
    assert (entry["prompt_tokens"], entry["completion_tokens"]) == (0, 0)


@pytest.mark.parametrize("root", ["", "/v1"])
def test_text_becomes_tokens_and_text_again(daemun: Stack, root: str) -> None:
    with httpx.Client(base_url=daemun.url + root, headers={"x-api-key": daemun.key}) as http:
        tokens = http.post("/tokenize", json={"model": MODEL, "prompt": QUESTION}).json()
        assert tokens["count"] == len(tokens["tokens"]) > 3
        text = http.post("/detokenize", json={"model": MODEL, "tokens": tokens["tokens"]})
        assert text.json() == {"prompt": QUESTION}
    assert daemun.entry(text.headers["x-request-id"])["endpoint"] == f"{root}/detokenize"


def test_tokens_of_messages_are_those_that_a_call_is_counted(client: openai.OpenAI) -> None:
    tokens = client.post("/tokenize", cast_to=httpx.Response, body={"model": MODEL, "messages": MESSAGES})
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=1)
    assert answer.usage is not None
    assert tokens.json()["count"] == answer.usage.prompt_tokens


async def test_models_are_the_same_for_both_clients(
    client: openai.OpenAI, aclient: openai.AsyncOpenAI, claude: anthropic.Anthropic, aclaude: anthropic.AsyncAnthropic
) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert (await aclient.models.retrieve(MODEL)).created > 1_700_000_000
    assert [model.id for model in claude.models.list()] == [MODEL]
    one = await aclaude.models.retrieve(MODEL)
    assert (one.id, one.type, one.created_at.tzinfo is not None) == (MODEL, "model", True)


def test_what_a_client_asks_for_passes_untouched(client: openai.OpenAI) -> None:
    several = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, n=2, logprobs=True, top_logprobs=2, max_tokens=4, extra_body={"top_k": 1, **LONG}
    )
    assert [choice.message.content for choice in several.choices] == [several.choices[0].message.content] * 2
    assert several.choices[0].logprobs is not None
    assert len((several.choices[0].logprobs.content or [])[0].top_logprobs) == 2
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"n": {"type": "integer", "maximum": 9, "minimum": 0}},
        "required": ["n"],
    }
    structured = client.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        max_tokens=60,
        response_format={"type": "json_schema", "json_schema": {"name": "number", "schema": schema}},
    )
    assert isinstance(json.loads(structured.choices[0].message.content or "")["n"], int)
    with pytest.raises(openai.BadRequestError, match="tool-call-parser"):  # it read the tools; the demo model cannot use any
        client.chat.completions.create(
            model=MODEL,
            messages=MESSAGES,
            tools=[{"type": "function", "function": {"name": "pick", "parameters": schema}}],
            tool_choice={"type": "function", "function": {"name": "pick"}},
        )


def test_wrong_keys_unknown_models_and_forbidden_fields_are_the_clients_own_exceptions(
    daemun: Stack, client: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    with pytest.raises(openai.AuthenticationError) as wrong_key:
        client.with_options(api_key="dm-wrong").models.list()
    assert wrong_key.value.code == "invalid_api_key"
    with pytest.raises(anthropic.AuthenticationError) as wrong_claude_key:
        claude.with_options(api_key="dm-wrong").messages.create(model=MODEL, messages=ASKED, max_tokens=1)
    assert wrong_claude_key.value.type == "authentication_error"
    with pytest.raises(openai.NotFoundError) as unknown:
        client.responses.create(model="gpt-9", input=QUESTION)
    assert (unknown.value.code, MODEL in unknown.value.message) == ("model_not_found", True)
    with pytest.raises(anthropic.NotFoundError) as unknown_to_claude:
        claude.messages.count_tokens(model="claude-9", messages=ASKED)
    assert unknown_to_claude.value.type == "not_found_error"
    assert MODEL in str(unknown_to_claude.value)
    with pytest.raises(openai.BadRequestError) as operators:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, extra_body={"priority": -100})
    assert (operators.value.param, operators.value.code) == ("priority", "invalid_request")
    with pytest.raises(anthropic.BadRequestError) as operators_of_claude:
        claude.messages.create(model=MODEL, messages=ASKED, max_tokens=1, extra_body={"cache_salt": "x"})
    assert "cache_salt" in str(operators_of_claude.value)
    entry = daemun.entry(operators_of_claude.value.response.headers["x-request-id"])
    assert (entry["outcome"], entry["status"], entry["endpoint"]) == ("rejected", 400, "/v1/messages")


def test_what_the_engine_refuses_names_the_field_on_every_api(client: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    with pytest.raises(openai.BadRequestError) as temperature:
        client.responses.create(model=MODEL, input=QUESTION, temperature=9)
    assert temperature.value.param == "temperature"
    with pytest.raises(anthropic.BadRequestError, match="max_completion_tokens"):
        claude.messages.create(model=MODEL, messages=ASKED, max_tokens=5000)
    with pytest.raises(openai.BadRequestError) as missing:
        client.post("/tokenize", cast_to=httpx.Response, body={"model": MODEL})
    assert missing.value.param == "prompt"


@pytest.mark.parametrize("path", ["/embeddings", "/score", "/rerank"])
def test_what_this_kind_of_model_does_not_do_is_said(client: openai.OpenAI, path: str) -> None:
    body = {"model": MODEL, "input": QUESTION, "queries": QUESTION, "query": QUESTION, "documents": [QUESTION]}
    with pytest.raises(openai.BadRequestError) as caught:
        client.post(path, cast_to=httpx.Response, body=body)
    assert (caught.value.param, path in caught.value.message) == ("model", True)


def test_nothing_is_kept_between_calls_and_it_says_so(client: openai.OpenAI) -> None:
    answer = client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=1, store=True)
    with pytest.raises(openai.BadRequestError) as previous:
        client.responses.create(model=MODEL, input="더?", previous_response_id=answer.id)
    assert previous.value.param == "previous_response_id"
    with pytest.raises(openai.BadRequestError) as background:
        client.responses.create(model=MODEL, input=QUESTION, background=True)
    assert background.value.param == "background"
    for gone in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
        with pytest.raises(openai.NotFoundError, match="not kept"):
            gone(answer.id)


def is_idle(daemun: Stack) -> bool:
    text = httpx.get(f"{daemun.replicas()[0]}/metrics").text
    return [line.split()[-1] for line in text.splitlines() if line.startswith("vllm:num_requests_running")] == ["0.0"]


def test_response_that_is_left_in_mid_stream_ends_in_the_engine_and_its_pieces_count(
    daemun: Stack, client: openai.OpenAI
) -> None:
    stream = client.responses.create(model=MODEL, input=QUESTION, stream=True, max_output_tokens=1500, extra_body=LONG)
    deltas = 0
    for event in stream:
        deltas += event.type == "response.output_text.delta"
        if deltas == 20:
            break
    stream.close()
    entry = daemun.entry(stream.response.headers["x-request-id"])
    assert entry["outcome"] == "aborted"
    assert 20 <= entry["completion_tokens"] < 1500
    until(lambda: is_idle(daemun), 5, "the engine idle")


def test_message_that_is_left_in_mid_stream_is_counted_with_its_whole_prompt(daemun: Stack, claude: anthropic.Anthropic) -> None:
    prompt = claude.messages.count_tokens(model=MODEL, messages=ASKED).input_tokens
    with claude.messages.create(model=MODEL, messages=ASKED, max_tokens=1500, stream=True, extra_body=LONG) as stream:
        deltas = 0
        for event in stream:
            deltas += event.type == "content_block_delta"
            if deltas == 10:
                break
        headers = stream.response.headers
    entry = daemun.entry(headers["x-request-id"])
    assert (entry["prompt_tokens"], entry["outcome"] in ("aborted", "completed")) == (prompt, True)
    assert entry["completion_tokens"] >= 10
    until(lambda: is_idle(daemun), 5, "the engine idle")


@pytest.mark.parametrize("path", ["/inference/v1/generate", "/v1/load_lora_adapter", "/v1/chat/completions/render", "/metrics"])
def test_what_belongs_to_the_operator_is_out_of_reach(daemun: Stack, path: str) -> None:
    answer = httpx.post(daemun.url + path, json={"model": MODEL}, headers={"Authorization": f"Bearer {daemun.key}"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_headers_that_steer_the_engine_do_not_reach_it(daemun: Stack, client: openai.OpenAI) -> None:
    """With `x-request-id` an engine names its answer; ours says which call it was, the client's nothing."""
    sent = {"X-Request-Id": "mine", "X-data-parallel-rank": "7", "X-Session-Id": "s"}
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES, max_tokens=1, extra_headers=sent)
    assert raw.headers["x-request-id"] in raw.parse().id
    assert "mine" not in raw.parse().id
