"""Exact counts of prompts, from the model's own tokenizer: the engine's, where a ready replica can be asked."""

from __future__ import annotations

import asyncio

import msgspec

from gateway.call_error import CallError
from gateway.ports import Fleet, Replica, Upstream
from gateway.protocol import plain
from gateway.protocol.endpoint import Api
from gateway.protocol.openai import Request
from gateway.protocol.plain import Engine

_WITHIN_S = 1.0
_TOLD = {  # what of a request its prompt is made of
    Api.CHAT: (
        "model",
        "messages",
        "tools",
        "chat_template",
        "chat_template_kwargs",
        "continue_final_message",
        "add_generation_prompt",
    ),
    Api.COMPLETIONS: ("model", "prompt", "add_special_tokens"),
    Api.MESSAGES: ("model", "messages", "system", "tools", "tool_choice"),
}
_PATHS = {Api.CHAT: "/tokenize", Api.COMPLETIONS: "/tokenize", Api.MESSAGES: "/v1/messages/count_tokens"}


class _Counted(msgspec.Struct):
    count: int | None = None
    input_tokens: int | None = None


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_counted = msgspec.json.Decoder(_Counted)


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
        fields = _fields.decode(request.own_body)
        body = msgspec.json.encode({name: fields[name] for name in _TOLD[api] if name in fields})
        try:
            async with asyncio.timeout(_WITHIN_S):
                return await self._ask(replica, _PATHS[api], body)
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
