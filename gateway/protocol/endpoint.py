"""Every address that an engine answers, one row each: what applications can reach, and all that differs between the rows.

What is not in this table does not exist for clients. vLLM's own addresses for operators and for parts of an engine (/sleep,
/collective_rpc, /reset_prefix_cache, /v1/load_lora_adapter, /inference/v1/generate, …/render) are left out on purpose. Fields of
requests are `gateway.protocol.openai`'s, reading counts `gateway.protocol.usage`'s and `gateway.protocol.counts`'.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from gateway.protocol.sse import DONE, ENGINE_ERROR


class Api(Enum):
    """Whose request fields and counts an endpoint has. The value is the name in metrics and in the OpenAPI document."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    MESSAGES = "messages"
    COUNT_TOKENS = "count_tokens"
    EMBEDDINGS = "embeddings"
    SCORE = "score"
    RERANK = "rerank"
    TOKENIZE = "tokenize"
    DETOKENIZE = "detokenize"


@dataclass(frozen=True, slots=True)
class Stream:
    """How an API's stream ends and counts: events that begin so are its last ones, or say that the engine has failed.

    `asked` means that the counts have to be asked for, and then come on every chunk; else the API's own events carry them.
    """

    last: tuple[bytes, ...]
    failed: tuple[bytes, ...]
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address. `engine_path` is where the engine has it; `summary` and `summary_ko` are one line for people.

    `counted` is whether the engine counts tokens for it: what it answers about tokens themselves costs none.
    """

    path: str
    engine_path: str
    api: Api
    summary: str
    summary_ko: str
    stream: Stream | None = None
    counted: bool = True


_CHUNKS = Stream(last=(DONE,), failed=(ENGINE_ERROR,), asked=True)
_RESPONSE_EVENTS = Stream(
    last=(b"event: response.completed\n", b"event: response.incomplete\n"),
    failed=(b"event: response.failed\n", b"event: error\n"),
)
_MESSAGE_EVENTS = Stream(last=(b"event: message_stop\n",), failed=(b"event: error\n",))

NO_STREAM = Stream(last=(), failed=())

CHAT = Endpoint(
    "/v1/chat/completions",
    "/v1/chat/completions",
    Api.CHAT,
    "Chat completions, as in OpenAI's API",
    "대화 완성 (OpenAI API와 같음)",
    _CHUNKS,
)
COMPLETIONS = Endpoint(
    "/v1/completions",
    "/v1/completions",
    Api.COMPLETIONS,
    "Text completions, as in OpenAI's API",
    "텍스트 완성 (OpenAI API와 같음)",
    _CHUNKS,
)
RESPONSES = Endpoint(
    "/v1/responses",
    "/v1/responses",
    Api.RESPONSES,
    "Responses, as in OpenAI's API, without anything that is kept between calls",
    "응답 (OpenAI Responses API와 같되, 호출 사이에 아무것도 저장하지 않음)",
    _RESPONSE_EVENTS,
)
MESSAGES = Endpoint(
    "/v1/messages",
    "/v1/messages",
    Api.MESSAGES,
    "Messages, as in Anthropic's API",
    "메시지 (Anthropic API와 같음)",
    _MESSAGE_EVENTS,
)
EMBEDDINGS = Endpoint(
    "/v1/embeddings",
    "/v1/embeddings",
    Api.EMBEDDINGS,
    "Embeddings, as in OpenAI's API, of models that have them",
    "임베딩 (OpenAI API와 같음, 지원하는 모델만)",
)


def _under(
    paths: tuple[str, ...], engine_path: str, api: Api, summary: str, summary_ko: str, *, counted: bool = True
) -> list[Endpoint]:
    """One endpoint under several addresses, for clients that put /v1 before everything and for those that do not."""
    return [Endpoint(path, engine_path, api, summary, summary_ko, counted=counted) for path in paths]


# The engine's own paths for these have no /v1; with it, it logs a warning at each call.
ENDPOINTS: tuple[Endpoint, ...] = (
    CHAT,
    COMPLETIONS,
    RESPONSES,
    MESSAGES,
    *_under(
        ("/v1/messages/count_tokens",),
        "/v1/messages/count_tokens",
        Api.COUNT_TOKENS,
        "How many tokens a message has, as in Anthropic's API",
        "메시지의 토큰 수 (Anthropic API와 같음)",
        counted=False,
    ),
    EMBEDDINGS,
    *_under(
        ("/v1/score", "/score"),
        "/score",
        Api.SCORE,
        "Scores of pairs of texts, of models that have them",
        "텍스트 쌍의 점수 (지원하는 모델만)",
    ),
    *_under(
        ("/v1/rerank", "/v2/rerank", "/rerank"),
        "/rerank",
        Api.RERANK,
        "Documents in the order of their relevance to a query, as in Cohere's and Jina's APIs",
        "질의와의 관련도에 따른 문서 재정렬 (Cohere·Jina API와 같음)",
    ),
    *_under(
        ("/v1/tokenize", "/tokenize"),
        "/tokenize",
        Api.TOKENIZE,
        "The tokens of a prompt or of messages",
        "프롬프트나 메시지의 토큰",
        counted=False,
    ),
    *_under(
        ("/v1/detokenize", "/detokenize"),
        "/detokenize",
        Api.DETOKENIZE,
        "The text of tokens",
        "토큰을 텍스트로",
        counted=False,
    ),
)

AT = {endpoint.path: endpoint for endpoint in ENDPOINTS}
