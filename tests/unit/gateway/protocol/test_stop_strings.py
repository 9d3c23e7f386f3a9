"""Stop strings are found wherever they are cut; the model is vLLM's rule, one character at a time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.stop_strings import StopMatcher, StopStrings

texts = st.text("가나다", max_size=12)


def say(matcher: StopMatcher, pieces: list[str]) -> tuple[str, str | None]:
    said = ""
    for piece in pieces:
        more, stop = matcher.feed(piece, 1)
        said += more
        if stop is not None:
            return said, stop
    return said + matcher.rest(), None


@given(texts, texts, st.lists(st.text("가나다", min_size=1, max_size=4), min_size=1, max_size=3), st.booleans(), st.data())
def test_text_ends_at_the_stop_string_that_is_complete_first(
    before: str, after: str, strings: list[str], included: bool, data: st.DataObject
) -> None:
    stop = StopStrings(tuple(strings), included)
    points = sorted(data.draw(st.lists(st.integers(0, len(after)), max_size=4)))
    pieces = [after[begin:end] for begin, end in zip([0, *points], [*points, len(after)], strict=True)]
    held = before[max(0, len(before) - stop.held_back) :] if stop.held_back else ""
    assert say(StopMatcher(stop, before), pieces) == expected(before, after, stop, held)


def expected(before: str, after: str, stop: StopStrings, held: str) -> tuple[str, str | None]:
    for length in range(1, len(after) + 1):
        whole = before + after[:length]
        for string in stop.strings:
            if whole.endswith(string):
                end = whole if stop.included else whole[: len(whole) - len(string)]
                return end[len(before) - len(held) :], string
    return held + after, None


def test_what_may_begin_a_stop_string_is_held_back() -> None:
    matcher = StopMatcher(StopStrings(("그만하자",)), "안녕")
    assert matcher.feed("하세요 그만", 1) == ("안녕하세요", None)
    assert matcher.feed("하", 1) == (" ", None)
    assert matcher.feed("자고", 1) == ("", "그만하자")


def test_included_stop_strings_hold_nothing_back() -> None:
    matcher = StopMatcher(StopStrings(("그만하자",), included=True), "안녕 그만")
    assert matcher.feed("하", 1) == ("하", None)
    assert matcher.feed("자고", 1) == ("자", "그만하자")


def test_stop_strings_within_the_shortest_answer_are_none() -> None:
    matcher = StopMatcher(StopStrings(("끝",)), "", min_tokens=2)
    assert matcher.feed("끝", 1) == ("끝", None)
    assert matcher.feed("끝", 1) == ("끝", None)
    assert matcher.feed("더끝", 1) == ("더", "끝")
