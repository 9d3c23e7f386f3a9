"""Hypothesis strategies for what engines say and how networks cut it up."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.vllm_stream import Fields, Generation, Step

# Texts that look like the very things the gateway searches for, and those that JSON escapes.
_TRICKY = (
    "안녕하세요",
    "대문",
    "😀👩‍👩‍👧",
    ',"usage":{',
    ',"usage":{"prompt_tokens":1}',
    '"finish_reason":"',
    '"choices":[]',
    ',"system_fingerprint":"x"',
    "data: [DONE]\n\n",
    "\n\n",
    '\\"',
    "\\",
    "}}{",
    "\x00",
    "\u2028",
    "usage",
    "finish_reason",
    '"},"logprobs":null,"finish_reason":null,"token_ids":[1]}],"usage":{',
    '","token_ids":[7],"',
    "]}],",
)

texts = st.lists(st.sampled_from(_TRICKY) | st.text(max_size=6), max_size=3).map("".join)
_logprob = st.floats(-50, 0).map(lambda value: round(value, 4))
_top = st.fixed_dictionaries({"token": texts, "logprob": _logprob, "bytes": st.lists(st.integers(0, 255), max_size=3)})
_chat_logprobs: st.SearchStrategy[Fields] = st.fixed_dictionaries(
    {
        "content": st.lists(
            st.fixed_dictionaries(
                {"token": texts, "logprob": _logprob, "bytes": st.none(), "top_logprobs": st.lists(_top, max_size=2)}
            ),
            min_size=1,
            max_size=2,
        )
    }
)
_text_logprobs: st.SearchStrategy[Fields] = st.fixed_dictionaries(
    {
        "text_offset": st.lists(st.integers(0, 99), max_size=2),
        "token_logprobs": st.lists(st.none() | _logprob, max_size=2),
        "tokens": st.lists(texts, max_size=2),
        "top_logprobs": st.lists(st.none() | st.dictionaries(texts, _logprob, max_size=3), max_size=2),
    }
)
_tool_call = st.fixed_dictionaries(
    {"id": st.just("chatcmpl-tool-1"), "type": st.just("function"), "index": st.integers(0, 2)}
    | {"function": st.fixed_dictionaries({"name": st.just("날씨"), "arguments": texts})}
)
_deltas: st.SearchStrategy[Fields] = st.one_of(
    st.fixed_dictionaries({"content": texts}),
    st.fixed_dictionaries({"reasoning": texts}),
    st.fixed_dictionaries({"tool_calls": st.lists(_tool_call, min_size=1, max_size=2)}),
    st.fixed_dictionaries({"content": texts, "reasoning": texts}),
)
cuts = st.lists(st.integers(0, 20_000), max_size=12)


@st.composite
def generations(draw: st.DrawFn, *, chat: bool | None = None, single: bool = False, silent: bool = False) -> Generation:
    """Any content of a vLLM stream: chat or completion, 1 to 3 choices, several prompts for completions.

    `silent`: with steps of a parser that has nothing to say yet.
    """
    is_chat = draw(st.booleans()) if chat is None else chat
    n = 1 if single else draw(st.integers(1, 3))
    prompts = 1 if is_chat or single else draw(st.integers(1, 3))
    turns = draw(st.lists(st.integers(0, n * prompts - 1), max_size=8))
    steps = [_step(draw, is_chat, choice, silent) for choice in turns]
    # Every choice finishes, some while others still speak.
    for choice in draw(st.permutations(range(n * prompts))):
        last = 1 + max((at for at, step in enumerate(steps) if step.choice == choice), default=len(steps) - 1)
        at = draw(st.integers(last, len(steps)))
        reason = draw(st.sampled_from(["stop", "length", "tool_calls"]))
        finish = _step(draw, is_chat, choice, True)
        steps.insert(at, Step(choice, finish.tokens, finish.says, finish.logprobs, reason))
    return Generation(
        chat=is_chat,
        n=n,
        prompt_tokens=tuple(draw(st.lists(st.integers(1, 99), min_size=prompts, max_size=prompts))),
        steps=tuple(steps),
        fingerprint=draw(st.sampled_from([None, "vllm-0.29.0-tp1-3f2a9c"])),
        cached_tokens=draw(st.none() | st.integers(0, 99)),
        reasoning_tokens=draw(st.none() | st.integers(0, 9)),
        model=draw(st.sampled_from(["daemun-demo", "한국어/모델"])),
    )


def _step(draw: st.DrawFn, is_chat: bool, choice: int, silent: bool) -> Step:
    deltas: st.SearchStrategy[Fields] = _deltas | st.just({}) if silent else _deltas
    says: Fields = draw(deltas) if is_chat else {"text": draw(texts)}
    logprobs: st.SearchStrategy[Fields] = _chat_logprobs if is_chat else _text_logprobs
    return Step(choice, draw(st.integers(0, 5)), says, draw(st.none() | logprobs))
