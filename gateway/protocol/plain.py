"""Servers with OpenAI's API that are not vLLM: what they are asked, and how their streams are read.

They are asked for nothing but what OpenAI's API has, since some refuse every field that they do not know (transformers: 422). So
nothing is cut out of their answers but the one chunk with totals that the gateway asked for, and nothing is held back. What they
tell of counts differs: in a chunk of totals, in the last chunk with choices, on every chunk, or nowhere (llama-cpp-python). Where
there are none, or none yet when a stream breaks off, the chunks that say something are counted: one is one token or a few.
"""

from __future__ import annotations

from enum import Enum

import msgspec

from gateway.protocol.openai import UsageWish
from gateway.protocol.sse import DATA, DONE, ENGINE_ERROR
from gateway.protocol.usage import Estimate, Usage


class Engine(Enum):
    """What a replica runs, as far as it matters for what may be asked of it."""

    VLLM = "vllm"
    OTHER = "other"


def engine_of(owners: tuple[str, ...]) -> Engine:
    """From the `owned_by` of each model in a server's own list. vLLM's says `vllm`; no other server's is known to."""
    return Engine.VLLM if owners and set(owners) == {"vllm"} else Engine.OTHER


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_RAW_TRUE = msgspec.Raw(b"true")
_NO_OPTIONS = msgspec.Raw(b"{}")


def asking(body: bytes) -> bytes:
    """A client's own request for a stream of chunks, which was read without complaint, asking for the totals as well."""
    fields = _fields.decode(body)
    given = fields.get("stream_options", _NO_OPTIONS)
    options = _fields.decode(_NO_OPTIONS if bytes(given) == b"null" else given) | {"include_usage": _RAW_TRUE}
    return msgspec.json.encode(fields | {"stream_options": msgspec.Raw(msgspec.json.encode(options))})


def named(body: bytes, name: str) -> bytes:
    """A request for a server that calls the model `name`."""
    fields = _fields.decode(body)
    return msgspec.json.encode(fields | {"model": msgspec.Raw(msgspec.json.encode(name))})


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: msgspec.Raw = msgspec.Raw(b"null")

    def says_something(self) -> bool:
        return bool(self.content or self.reasoning or self.reasoning_content or bytes(self.tool_calls) not in (b"null", b"[]"))


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta = _Delta()
    text: str | None = None

    def says_something(self) -> bool:
        return bool(self.text) or self.delta.says_something()


class _Chunk(msgspec.Struct, frozen=True):
    choices: tuple[_Choice, ...] = ()
    usage: Usage | None = None


_chunks = msgspec.json.Decoder(_Chunk)
_NOTHING = _Chunk()


class PlainReader:
    """A `gateway.protocol.stream_reader.Reader` between such a server's stream and the client's. None of it is held back.

    `prompt_tokens` is what to believe of the prompt as long as the server has not counted it.
    """

    stopped = False

    def __init__(self, wish: UsageWish, *, prompt_tokens: int = 0) -> None:
        self.ended = False  # the server's `[DONE]` was read; some never send it
        self.broken = False  # the server said itself that it cannot go on
        self._wish = wish
        self._prompt_tokens = prompt_tokens
        self._read: tuple[Usage | None, int] = (None, 0)  # the server's last counts, and the chunks that said something
        self._delivered: tuple[Usage | None, int] = (None, 0)

    def read(self, event: bytes) -> bytes:
        """What the client gets for this event: the event, or nothing for the totals that it did not ask for."""
        self.ended = self.ended or event == DONE
        self.broken = self.broken or event.startswith(ENGINE_ERROR)
        chunk = _chunk(event)
        usage, said = self._read
        self._read = chunk.usage or usage, said + any(choice.says_something() for choice in chunk.choices)
        return b"" if self._wish is UsageWish.NONE and chunk.usage is not None and not chunk.choices else event

    def go_on(self, answer: bytes | None = None) -> None:
        """Elsewhere nobody could: such servers tell no token ids."""

    def rest(self) -> bytes:
        """Nothing is ever held."""
        self.broken = False
        return b""

    def delivered(self) -> None:
        """The client has got all that was read so far."""
        self._delivered = self._read

    def usage(self) -> Usage:
        """The server's counts of all that was delivered, or else ours."""
        usage, said = self._delivered
        return usage or Estimate(prompt_tokens=self._prompt_tokens, completion_tokens=said)


def _chunk(event: bytes) -> _Chunk:
    try:
        return _chunks.decode(event.removeprefix(DATA))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _NOTHING
