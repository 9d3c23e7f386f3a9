"""JSON as clients should never write it: the same key twice or escaped, lone surrogates, NaN, endless numbers, deep nesting."""

from __future__ import annotations

import json

from hypothesis import strategies as st

from tests.strategies import texts

_NO_UTF8 = "\udc80"  # one byte 0x80 once encoded
_LEVELS = st.integers(1, 30).flatmap(lambda drawn: st.integers(10, 1200) if drawn < 30 else st.sampled_from([5_000, 100_000]))
_ODD_STRINGS = st.sampled_from(
    [
        f'"{_NO_UTF8}"',
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '"\\u0000"',
        '"\\x"',
        '"',
        '"\t"',
        "'a'",
        '"\\ud83d\\ude00"',
        '"' + "ㄱ" * 500 + '"',
    ]
)
_ODD_NUMBERS = st.sampled_from(["NaN", "Infinity", "-Infinity", "-0", "1e400", "1E-400", "01", "+1", "1.", ".5", "0x10", "1_000"])
_HUGE = st.integers(15, 6000).map(lambda digits: "9" * digits)
_SPACES = st.sampled_from(["", "", "", "", "", " ", " ", "\n\t ", "\r\n", "\x0b", "\u00a0", "\ufeff"])

scalars = st.one_of(
    st.sampled_from(["null", "true", "false", "0", "1", "-1", "2", "1.0", "2.0", "1.5"]),
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(json.dumps),
    st.tuples(texts, st.booleans()).map(lambda said: json.dumps(said[0], ensure_ascii=said[1])),
    _ODD_STRINGS,
    _ODD_NUMBERS,
    _HUGE,
)


@st.composite
def _nested(draw: st.DrawFn) -> str:
    """So deep that a recursive reader falls; closed properly or not."""
    levels = draw(_LEVELS)
    opening, closing = draw(st.sampled_from([("[", "]"), ('{"a":', "}"), ('[{"model":"x","n":', "}]")]))
    return opening * levels + "1" + closing * draw(st.sampled_from([levels, levels, levels - 1, 0]))


@st.composite
def objects(draw: st.DrawFn, keys: st.SearchStrategy[str], inner: st.SearchStrategy[str]) -> str:
    """Keys may come twice, and with letters escaped."""
    pairs = draw(st.lists(st.tuples(keys, inner), max_size=6))
    space = draw(_SPACES)
    return "{" + f"{space},".join(f"{space}{_key(draw, key)}:{space}{value}" for key, value in pairs) + "}"


def _key(draw: st.DrawFn, key: str) -> str:
    if draw(st.integers(0, 30)) == 0:
        return f'"{_NO_UTF8}{key}"'
    quoted = json.dumps(key, ensure_ascii=draw(st.booleans()))
    if not key.isalpha() or not draw(st.sampled_from([True, False, False])):
        return quoted
    at = draw(st.integers(0, len(key) - 1))
    return f'"{key[:at]}\\u{ord(key[at]):04x}{key[at + 1 :]}"'


def _seldom(odd: st.SearchStrategy[str], usual: st.SearchStrategy[str], *, one_in: int) -> st.SearchStrategy[str]:
    return st.integers(1, one_in).flatmap(lambda drawn: odd if drawn == one_in else usual)


_trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3).map(lambda items: "[" + ",".join(items) + "]") | objects(texts, inner),
    max_leaves=4,
)
values = _seldom(_nested(), _trees, one_in=12)


def _usually(*good: str) -> st.SearchStrategy[str]:
    return _seldom(values, st.sampled_from(good), one_in=10)


_FLAGS = _usually("true", "true", "false", "null")
_OPTIONS = objects(st.sampled_from(["include_usage", "continuous_usage_stats", "other"]), _FLAGS)
_FIELDS: dict[str, st.SearchStrategy[str]] = {
    "model": _usually('"daemun-demo"', '"대문"', '"daemun\\u002ddemo"'),
    "stream": _FLAGS,
    "n": _usually("1", "2", "null", "128"),
    "stream_options": _seldom(values, _OPTIONS, one_in=10),
    "prompt": _usually('"안녕"', "[1,2]", '["하나","둘"]', "[[1],[2,3]]", '[ "a" , [1] ]', "[]", "[[]]"),
    "messages": _usually('[{"role":"user","content":"안녕?"}]', "[]", "{}"),
    "return_token_ids": _FLAGS,
    "x": values,
}


@st.composite
def requests(draw: st.DrawFn) -> str:
    """A request's text: often valid, with the fields that the gateway reads in every shape, some of them twice."""
    chosen = draw(st.lists(st.sampled_from(sorted(_FIELDS)), max_size=7))
    space = draw(_SPACES)
    pairs = ['"model":"daemun-demo"', *(f"{_key(draw, key)}:{space}{draw(_FIELDS[key])}" for key in chosen)]
    return "{" + f"{space},".join(draw(st.permutations(pairs))) + "}" + space


_BYTES = st.sampled_from([b"\x80", b"\xed\xa0\x80", b"\x00", b'"', b"\\", b"{", b"}", b",", b"\n", b"1"])


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """Up to three places of it cut out, doubled, or overwritten."""
    for _ in range(draw(st.integers(0, 3))):
        begin = draw(st.integers(0, len(data)))
        end = min(len(data), begin + draw(st.integers(0, 20)))
        put = draw(st.one_of(st.just(b""), st.just(data[begin:end] * 2), _BYTES, st.binary(max_size=6)))
        end = draw(st.sampled_from([begin, end]))
        data = data[:begin] + put + data[end:]
    return data


_ENCODINGS = st.sampled_from(["utf-8"] * 20 + ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp949"])


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """What a request's body may be: a request's text in some encoding, now and then damaged; other JSON; anything."""
    kind = draw(st.integers(0, 9))
    if kind == 9:
        return draw(st.binary(max_size=60))
    text = draw(values if kind == 8 else requests())
    encoding = draw(_ENCODINGS)
    data = text.encode(encoding, "surrogateescape" if encoding == "utf-8" else "replace")
    return draw(mutated(data)) if kind > 5 else data
