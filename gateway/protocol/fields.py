"""The fields of requests that the gateway reads or refuses, for each API. All others pass unread.

These types are the OpenAPI document's too (`gateway.routes.openapi`): what is described is what is read. A field typed `None` may
not be sent; JSON's `null` counts as leaving it out, as it does in the engine.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from gateway.errors import InvalidField, NothingIsKept
from gateway.protocol import service_tier as tiers
from gateway.protocol.endpoint import Api

Json: TypeAlias = Raw | UnsetType  # kept as the client's bytes; what it must be is the engine's to say, and the document's
Text = Annotated[Json, Meta(extra_json_schema={"type": ["string", "array"]})]
Messages = Annotated[Json, Meta(extra_json_schema={"type": "array", "items": {"type": "object"}})]
Tools = Annotated[Json, Meta(extra_json_schema={"type": ["array", "null"], "items": {"type": "object"}})]
Tokens = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Name = Annotated[str, Meta(max_length=256)]
Choices = Annotated[int, Meta(ge=1, le=128)]  # as OpenAI's

# Lists that are not of objects, or endless, are refused here. vLLM 0.29 reports each wrong item once for every type that it might
# have been: 500 wrong items of a response's input, a body of 4 kB, hold a replica up for 10 s and give an error of 200 MB.
_MOST_MESSAGES = 8192
_MOST_INPUT_ITEMS = 2048
_MOST_TOOLS = 512
_MOST_PROMPTS = 2048  # as OpenAI's embeddings

_BATCH = re.compile(rb'\[\s*["\[{]')  # a list of texts, of lists of token ids, or of objects; not one of token ids
_ENGINES_DEFAULT_TOKENS = 16  # of a completion, by OpenAI's standard and in vLLM


class _Object(msgspec.Struct, frozen=True):
    """Any JSON object; most have a type."""

    type: str | None = None


_Found = TypeVar("_Found")
_messages = msgspec.json.Decoder(Annotated[list[_Object], Meta(max_length=_MOST_MESSAGES)] | None)
_tools = msgspec.json.Decoder(Annotated[list[_Object], Meta(max_length=_MOST_TOOLS)] | None)
_input = msgspec.json.Decoder(Annotated[list[_Object], Meta(max_length=_MOST_INPUT_ITEMS)] | str | None)
_prompts = msgspec.json.Decoder(Annotated[list[Raw], Meta(max_length=_MOST_PROMPTS)] | None)


def _objects(name: str, value: Json, decoder: msgspec.json.Decoder[_Found]) -> _Found | None:
    """The value of that field, looked into one level deep. Raises InvalidField."""
    if value is UNSET:
        return None
    try:
        return decoder.decode(value)
    except msgspec.ValidationError as problem:
        detail, _, path = str(problem).partition(" - at `$")
        raise InvalidField(param=name + path.rstrip("`"), detail=detail.replace("`", "").lower()) from problem


def _batch_size(name: str, value: Json) -> int:
    """How many prompts, texts or documents that field holds. Raises InvalidField if they are too many."""
    if value is UNSET or not _BATCH.match(bytes(value)):
        return 1
    return len(_objects(name, value, _prompts) or ())


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class Head(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What every API has: a model, what is for the gateway alone, and fields that only the operator may set, with the reason."""

    model: Annotated[str, Meta(max_length=256, description="One of those that /v1/models lists. · /v1/models에 나오는 모델.")]
    models: Annotated[
        Annotated[tuple[Name, ...], Meta(max_length=16)] | None,
        Meta(description="Where the call may go if `model` is full, first choice first. · `model`이 꽉 찼을 때 대신 쓸 모델."),
    ] = None
    service_tier: Annotated[
        tiers.Word | None, Meta(description="Never better than the key's own. · 키의 등급보다 높을 수는 없습니다.")
    ] = None
    priority: Annotated[None, Meta(description="The order of calls follows from the key's tier and tenant.")] = None
    cache_salt: Annotated[None, Meta(description="Which calls may share cached prompts is part of keeping tenants apart.")] = None
    request_id: Annotated[None, Meta(description="The gateway names calls, so that no two have one name.")] = None
    data_parallel_rank: Annotated[None, Meta(description="The gateway chooses where a call runs.")] = None
    kv_transfer_params: Annotated[None, Meta(description="Parts of one engine use it to hand caches to each other.")] = None
    ec_transfer_params: Annotated[None, Meta(description="Parts of one engine use it to hand encoded images to each other.")] = (
        None
    )
    vllm_xargs: Annotated[None, Meta(description="It goes unchecked to the engine's extensions, cache transfer included.")] = None
    mm_processor_kwargs: Annotated[
        None, Meta(description="It goes unchecked to the image processor: one picture could take all memory.")
    ] = None
    media_io_kwargs: Annotated[
        None, Meta(description="It goes unchecked to the media decoder: one video could take all memory.")
    ] = None
    prompt_embeds: Annotated[None, Meta(description="The engine would load a serialised tensor from a stranger.")] = None

    def prompt(self) -> bytes:
        """All that the model will read: the raw JSON of the fields, in the order in which it is put before the model."""
        return b""

    def most_tokens(self) -> int | None:
        """The most tokens that one choice may generate; None where the model's own limit is the only one."""
        return 0

    def check(self) -> None:
        """Look into what is otherwise only passed on. Raises InvalidField or NothingIsKept."""

    def has_side_effects(self) -> bool:
        """Whether answering may do something that should not be done twice."""
        return False


FOR_THE_GATEWAY = frozenset({"models", "service_tier"})
OPERATOR_ONLY = frozenset(Head.__struct_fields__) - FOR_THE_GATEWAY - {"model"}


class Streamed(Head, frozen=True, kw_only=True, gc=False):
    stream: bool | None = None


class Chunked(Streamed, frozen=True, kw_only=True, gc=False):
    """Chat and text completions: the APIs whose stream counts only where it is asked to."""

    stream_options: StreamOptions | UnsetType | None = UNSET
    n: Choices | None = None
    max_tokens: Tokens | None = None

    def has_many_prompts(self) -> bool:
        """Whether `prompt` is a list of several. Raises InvalidField if it is of too many."""
        return False


class ChatRequest(Chunked, frozen=True, kw_only=True, gc=False):
    messages: Messages = UNSET
    tools: Tools = UNSET
    max_completion_tokens: Tokens | None = None

    def prompt(self) -> bytes:
        if self.tools is UNSET and self.messages is not UNSET:  # most calls, and `joined` is slower
            return bytes(self.messages)
        return joined(self.tools, self.messages)

    def check(self) -> None:
        _objects("messages", self.messages, _messages)
        _objects("tools", self.tools, _tools)

    def most_tokens(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class CompletionRequest(Chunked, frozen=True, kw_only=True, gc=False):
    prompt_: Text = msgspec.field(name="prompt", default=UNSET)

    def prompt(self) -> bytes:
        return joined(self.prompt_)

    def has_many_prompts(self) -> bool:
        return _batch_size("prompt", self.prompt_) > 1

    def most_tokens(self) -> int | None:
        return _ENGINES_DEFAULT_TOKENS if self.max_tokens is None else self.max_tokens


class ResponsesRequest(Streamed, frozen=True, kw_only=True, gc=False):
    input: Text = UNSET
    instructions: Text = UNSET
    tools: Tools = UNSET
    max_output_tokens: Tokens | None = None
    background: Annotated[bool | None, Meta(description="Not true: nothing is kept that could be fetched later.")] = None
    previous_response_id: Annotated[None, Meta(description="Responses are not kept: send the whole conversation in `input`.")] = (
        None
    )
    conversation: Annotated[None, Meta(description="Conversations are not kept: send all of it in `input`.")] = None
    store: Annotated[
        bool | None, Meta(description="Has no effect: nothing is stored, whatever it says. · 값과 관계없이 저장하지 않습니다.")
    ] = None

    def prompt(self) -> bytes:
        return joined(self.tools, self.instructions, self.input)

    def most_tokens(self) -> int | None:
        return self.max_output_tokens

    def has_side_effects(self) -> bool:
        """The engine runs tools that are neither functions nor the client's own itself: code, searches, other servers."""
        tools = _objects("tools", self.tools, _tools)
        return any(tool.type not in _CLIENTS_OWN_TOOLS for tool in tools or ())

    def check(self) -> None:
        items = _objects("input", self.input, _input)
        if not isinstance(items, str) and any(item.type == "item_reference" for item in items or ()):
            raise NothingIsKept(param="input")


_CLIENTS_OWN_TOOLS = frozenset({"function", "custom", "namespace"})
NEEDS_STORE = frozenset({"previous_response_id", "conversation"})


class CountTokensRequest(Head, frozen=True, kw_only=True, gc=False):
    messages: Messages = UNSET
    system: Text = UNSET
    tools: Tools = UNSET

    def prompt(self) -> bytes:
        return joined(self.tools, self.system, self.messages)

    def check(self) -> None:
        _objects("messages", self.messages, _messages)
        _objects("tools", self.tools, _tools)


class MessagesRequest(Streamed, frozen=True, kw_only=True, gc=False):
    messages: Messages = UNSET
    system: Text = UNSET
    tools: Tools = UNSET
    max_tokens: Tokens | None = None

    def prompt(self) -> bytes:
        return joined(self.tools, self.system, self.messages)

    def check(self) -> None:
        _objects("messages", self.messages, _messages)
        _objects("tools", self.tools, _tools)

    def most_tokens(self) -> int | None:
        return self.max_tokens


class EmbeddingsRequest(Head, frozen=True, kw_only=True, gc=False):
    input: Text = UNSET
    messages: Messages = UNSET
    encoding_format: Annotated[
        Literal["float", "base64"] | None, Meta(description="vLLM's binary formats have no counts, so they are not offered.")
    ] = None

    def prompt(self) -> bytes:
        return joined(self.input, self.messages)

    def check(self) -> None:
        _batch_size("input", self.input)


class ScoreRequest(Head, frozen=True, kw_only=True, gc=False):
    """Four spellings of the same two lists."""

    text_1: Text = UNSET
    text_2: Text = UNSET
    queries: Text = UNSET
    documents: Text = UNSET
    items: Text = UNSET
    data_1: Text = UNSET
    data_2: Text = UNSET

    def prompt(self) -> bytes:
        return joined(self.text_1, self.text_2, self.queries, self.documents, self.items, self.data_1, self.data_2)

    def check(self) -> None:
        for name in ("text_1", "text_2", "queries", "documents", "items", "data_1", "data_2"):
            _batch_size(name, getattr(self, name))


class RerankRequest(Head, frozen=True, kw_only=True, gc=False):
    query: Text = UNSET
    documents: Text = UNSET

    def prompt(self) -> bytes:
        return joined(self.query, self.documents)

    def check(self) -> None:
        _batch_size("documents", self.documents)


class TokenizeRequest(Head, frozen=True, kw_only=True, gc=False):
    prompt_: Text = msgspec.field(name="prompt", default=UNSET)
    messages: Messages = UNSET
    tools: Tools = UNSET

    def prompt(self) -> bytes:
        return joined(self.tools, self.prompt_, self.messages)

    def check(self) -> None:
        _objects("messages", self.messages, _messages)
        _objects("tools", self.tools, _tools)


class DetokenizeRequest(Head, frozen=True, kw_only=True, gc=False):
    tokens: Annotated[Json, Meta(extra_json_schema={"type": "array", "items": {"type": "integer"}})] = UNSET

    def prompt(self) -> bytes:
        return joined(self.tokens)


HEADS: dict[Api, type[Head]] = {
    Api.CHAT: ChatRequest,
    Api.COMPLETIONS: CompletionRequest,
    Api.RESPONSES: ResponsesRequest,
    Api.MESSAGES: MessagesRequest,
    Api.COUNT_TOKENS: CountTokensRequest,
    Api.EMBEDDINGS: EmbeddingsRequest,
    Api.SCORE: ScoreRequest,
    Api.RERANK: RerankRequest,
    Api.TOKENIZE: TokenizeRequest,
    Api.DETOKENIZE: DetokenizeRequest,
}


def joined(*values: Json) -> bytes:
    given = [value for value in values if value is not UNSET]
    return bytes(given[0]) if len(given) == 1 else b"".join(map(bytes, given))
