"""Going on elsewhere with a stream whose replica died: which calls can, and what is asked of the next replica.

A call goes on as `/v1/completions` from token ids: the prompt's, and those of the output that the client has the text of.
Everything that shaped the prompt (messages, template, tools, truncation) is in those ids and is left behind; everything that
shapes sampling goes along. Both endpoints of vLLM 0.29 have the same defaults for the latter, the server's own included.

Under greedy decoding the text is the one that would have come. What cannot be the same:

- `presence_penalty` and `frequency_penalty` count output only, and the old output is prompt now: they start anew.
  (`repetition_penalty` counts both.) A somewhat less penalised answer serves people better than half of one.
- `bad_words` and `repetition_detection` do not see across the break.
- With a `seed`, the rest is drawn from another one, derived from it and the place of the break: with the same one the
  draws of the beginning would come again.
- A limit on output that only the server knows (`max_new_tokens` of its generation config) starts anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from gateway.protocol.chunk import NULL, Fields, is_null, to_raw
from gateway.protocol.stop_strings import StopStrings

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
COUNT_EVERYTHING = msgspec.Raw(b'{"include_usage":true,"continuous_usage_stats":true}')

# Every field of vLLM 0.29's two requests, and of OpenAI's that vLLM ignores. One that is not listed prevents, unless null.
# Tables of words, to be read as such: that is why they are split (SIM905).
_COPIED = frozenset(
    """model temperature top_p top_k min_p repetition_penalty presence_penalty frequency_penalty logit_bias stop_token_ids
    ignore_eos include_stop_str_in_output skip_special_tokens spaces_between_special_tokens allowed_token_ids bad_words
    repetition_detection thinking_token_budget stream_interval priority cache_salt session_id""".split()  # noqa: SIM905
)
_TRANSFORMED = frozenset("max_tokens max_completion_tokens min_tokens seed stop stream stream_options".split())  # noqa: SIM905
_DROPPED = frozenset(
    """prompt add_generation_prompt continue_final_message add_special_tokens documents chat_template chat_template_kwargs
    reasoning_effort truncate_prompt_tokens truncation_side tool_choice parallel_tool_calls media_io_kwargs
    mm_processor_kwargs length_penalty request_id user return_tokens_as_token_ids return_token_offsets return_prompt_text
    return_assistant_tokens_mask best_of metadata store service_tier safety_identifier prompt_cache_key verbosity""".split()  # noqa: SIM905
)
_PREVENTS_UNLESS: dict[str, frozenset[bytes]] = {
    "n": frozenset({b"1"}),
    "echo": frozenset({b"false"}),
    "suffix": frozenset({b'""'}),
    "use_beam_search": frozenset({b"false"}),
    "logprobs": frozenset({b"false"}),
    "top_logprobs": frozenset({b"0"}),
    "logprob_token_ids": frozenset({b"[]"}),
    "include_reasoning": frozenset({b"true"}),
    "return_token_ids": frozenset({b"false"}),  # its client would see the ids made again twice
    "routed_experts_prompt_start": frozenset({b"0"}),
}
_BY_VALUE = frozenset({"messages", "tools", "response_format"})
_PREVENTS = frozenset(
    """prompt_logprobs prompt_embeds structured_outputs kv_transfer_params ec_transfer_params vllm_xargs""".split()  # noqa: SIM905
)
DECIDED = _COPIED | _TRANSFORMED | _DROPPED | _BY_VALUE | _PREVENTS | _PREVENTS_UNLESS.keys()
_SEEDS = 2**63  # they are 64-bit integers with a sign
_DEFAULT_MAX_TOKENS = 16  # of completions; a chat's is all that the model can
_TEXT_PARTS = frozenset({"text", "input_text", "output_text", "refusal", "thinking"})


@dataclass(frozen=True, slots=True)
class Send:
    """POST this to a replica and read the stream that it answers with."""

    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Ask:
    """POST this to a replica; its whole answer is what `go_on` wants to know."""

    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class End:
    """Nothing is left to generate: this is the rest of the client's stream."""

    data: bytes


Step = Send | Ask | End


@dataclass(frozen=True, slots=True)
class Plan:
    """What of a request its continuation needs. `max_tokens` None: as many as the model can."""

    chat: bool
    copied: Fields
    max_tokens: int | None
    min_tokens: int
    seed: int | None
    stop: StopStrings

    def request(self, prompt: bytes, kept: int, max_tokens: int) -> Send:
        """Go on from the ids in `prompt`, the last `kept` of which were generated, with up to `max_tokens` more."""
        fields = self.copied | {
            "prompt": msgspec.Raw(b"[" + prompt + b"]"),
            "max_tokens": to_raw(max_tokens),
            "min_tokens": to_raw(max(0, self.min_tokens - kept)),
            "stream": to_raw(True),
            "stream_options": COUNT_EVERYTHING,
            "return_token_ids": to_raw(True),
        }
        if self.seed is not None:
            fields["seed"] = to_raw((self.seed + kept + _SEEDS) % (2 * _SEEDS) - _SEEDS)
        return Send(COMPLETIONS, msgspec.json.encode(fields))

    def ask(self, path: str, name: str, value: msgspec.Raw) -> Ask:
        return Ask(path, msgspec.json.encode({"model": self.copied.get("model", NULL), name: value}))


class _Numbers(msgspec.Struct, frozen=True):
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    min_tokens: int | None = None
    seed: int | None = None
    stop: str | tuple[str, ...] | None = None
    include_stop_str_in_output: bool | None = None


class _Part(msgspec.Struct, frozen=True):
    type: str | None = None


class _Message(msgspec.Struct, frozen=True):
    content: msgspec.Raw = NULL


class _Format(msgspec.Struct, frozen=True):
    type: str = ""


_messages = msgspec.json.Decoder(tuple[_Message, ...])
_numbers = msgspec.json.Decoder(_Numbers)
_parts = msgspec.json.Decoder(tuple[_Part | str, ...])


def plan(endpoint: str, fields: Fields) -> Plan | None:
    """How the streaming call with these fields of its body, of a single choice, would go on; None if it could not.

    The replicas' answer then has to carry token ids: `return_token_ids` belongs into its body.
    """
    if endpoint not in (CHAT, COMPLETIONS):
        return None
    copied: Fields = {}
    for name, value in fields.items():
        if name in _COPIED:
            copied[name] = msgspec.Raw(bytes(value))  # a copy: the raw value would keep the whole body in memory
        elif name not in _DROPPED and name not in _TRANSFORMED and _prevents(name, value, fields):
            return None
    try:
        numbers = _numbers.decode(
            msgspec.json.encode({name: fields[name] for name in _Numbers.__struct_fields__ if name in fields})
        )
    except msgspec.DecodeError:
        return None  # the engine will refuse it
    chat = endpoint == CHAT
    limit = numbers.max_tokens if not chat or numbers.max_completion_tokens is None else numbers.max_completion_tokens
    stop = (numbers.stop,) if isinstance(numbers.stop, str) else numbers.stop or ()
    return Plan(
        chat=chat,
        copied=copied,
        max_tokens=_DEFAULT_MAX_TOKENS if limit is None and not chat else limit,
        min_tokens=numbers.min_tokens or 0,
        seed=numbers.seed,
        stop=StopStrings(stop, bool(numbers.include_stop_str_in_output)),
    )


def _prevents(name: str, value: msgspec.Raw, fields: Fields) -> bool:
    if is_null(value):
        return False
    match name:
        case "messages":
            return not _is_text(value)
        case "tools":
            return bytes(fields.get("tool_choice", NULL)) != b'"none"'
        case "response_format":
            return _type_of(value) != "text"
        case _:
            return bytes(value) not in _PREVENTS_UNLESS.get(name, ())


def _is_text(messages: msgspec.Raw) -> bool:
    """Whether there is nothing but text in them: images and sounds are not in token ids."""
    if bytes(messages).count(b"[") == 1:
        return True  # the list of messages is the only one: no content is a list of parts
    try:
        contents = [bytes(message.content) for message in _messages.decode(messages)]
        parts = [part for content in contents if content[:1] == b"[" for part in _parts.decode(content)]
    except msgspec.DecodeError:
        return False
    return all(isinstance(part, str) or part.type in _TEXT_PARTS for part in parts)


def _type_of(value: msgspec.Raw) -> str:
    try:
        return msgspec.json.decode(value, type=_Format).type
    except msgspec.DecodeError:
        return ""
