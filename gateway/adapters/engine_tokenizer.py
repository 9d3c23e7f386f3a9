"""Exact counts of prompts, from the model's own tokenizer: the engine's, where a ready replica can be asked.

What is asked has all in it that shapes the prompt: an end-to-end test holds the count to the engine's own `usage.prompt_tokens`.
vLLM's /tokenize takes one text and no token ids, so a completion's prompts are asked one by one, and ids are counted here. It
does not take what chats tell the template outside of `chat_template_kwargs` either, so that is put in there, as vLLM does itself.
"""

from __future__ import annotations

import asyncio

import msgspec

from gateway.call_error import CallError
from gateway.ports import Fleet, Replica, Upstream
from gateway.protocol import plain
from gateway.protocol.chunk import NULL, Fields, inner, is_null, text_of
from gateway.protocol.endpoint import Api
from gateway.protocol.openai import Request
from gateway.protocol.plain import Engine

_WITHIN_S = 1.0
_MOST_TEXTS = 16  # of one completion; more are not worth as many questions
_TOLD = {  # what of a request its prompt is made of
    Api.CHAT: (
        "model",
        "messages",
        "tools",
        "chat_template",
        "chat_template_kwargs",
        "continue_final_message",
        "add_generation_prompt",
        "add_special_tokens",
    ),
    Api.COMPLETIONS: ("model", "add_special_tokens"),
    Api.MESSAGES: ("model", "messages", "system", "tools", "tool_choice"),
}
_FOR_THE_TEMPLATE = ("documents", "reasoning_effort")
_PATHS = {Api.CHAT: "/tokenize", Api.COMPLETIONS: "/tokenize", Api.MESSAGES: "/v1/messages/count_tokens"}


class _Counted(msgspec.Struct):
    count: int | None = None
    input_tokens: int | None = None


_fields = msgspec.json.Decoder(Fields)
_counted = msgspec.json.Decoder(_Counted)
_prompts = msgspec.json.Decoder(str | list[int | str | list[int]])


class EngineTokenizer:
    def __init__(self, fleet: Fleet, upstream: Upstream) -> None:
        self._fleet = fleet
        self._upstream = upstream

    async def count(self, request: Request) -> int | None:
        """The prompt's tokens; None where nobody can say so in time."""
        api = request.endpoint.api
        replica = next((replica for replica in self._fleet.ready(request.model) if replica.engine is Engine.VLLM), None)
        if replica is None or api not in _TOLD:
            return None
        try:
            count, bodies = _questions(api, _fields.decode(request.own_body))
            async with asyncio.timeout(_WITHIN_S):
                for body in bodies:
                    counted = await self._ask(replica, _PATHS[api], body)
                    if counted is None:
                        return None
                    count += counted
            return count
        except (CallError, TimeoutError, msgspec.DecodeError):
            return None

    async def _ask(self, replica: Replica, path: str, body: bytes) -> int | None:
        if replica.known_as is not None:
            body = plain.named(body, replica.known_as)
        async with await self._upstream.open(replica, path, body, "", repeatable=True) as answer:
            said = await answer.piece()
            while piece := await answer.piece():
                said += piece
        if answer.status != 200:
            return None
        counted = _counted.decode(said)
        return counted.count if counted.count is not None else counted.input_tokens


def _questions(api: Api, fields: Fields) -> tuple[int, list[bytes]]:
    """How many tokens are known, and what to ask for the others. Raises DecodeError where nobody could say."""
    told = {name: fields[name] for name in _TOLD[api] if name in fields}
    if api is not Api.COMPLETIONS:
        return 0, [msgspec.json.encode(told | _for_the_template(fields) if api is Api.CHAT else told)]
    given = _prompts.decode(fields.get("prompt", NULL))
    prompts = [given] if isinstance(given, str) else given
    texts = [text for text in prompts if isinstance(text, str)]
    if len(texts) > _MOST_TEXTS:
        raise msgspec.DecodeError
    known = sum(1 if isinstance(ids, int) else len(ids) for ids in prompts if not isinstance(ids, str))
    return known, [msgspec.json.encode(told | {"prompt": text}) for text in texts]


def _for_the_template(fields: Fields) -> Fields:
    """`chat_template_kwargs`, as vLLM makes them of a chat's other fields."""
    extra = {name: fields[name] for name in _FOR_THE_TEMPLATE if not is_null(fields.get(name, NULL))}
    if not extra:
        return {}
    given = inner(fields.get("chat_template_kwargs", NULL))
    if "reasoning_effort" in extra and "enable_thinking" not in given:
        extra["enable_thinking"] = msgspec.Raw(b"false" if text_of(extra["reasoning_effort"]) == "none" else b"true")
    return {"chat_template_kwargs": msgspec.Raw(msgspec.json.encode(given | extra))}
