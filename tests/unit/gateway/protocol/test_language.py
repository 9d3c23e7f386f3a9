"""Accept-Language picks English or Korean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.language import preferred


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("ko", "ko"),
        ("KO-kr", "ko"),
        ("ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7", "ko"),
        ("en-US,en;q=0.9,ko;q=0.8", "en"),
        ("en;q=0.5, ko;q=0.6", "ko"),
        ("ko;q=0", "en"),
        ("ko;q=half", "en"),
        ("fr,de;q=0.5", "en"),
        ("fr, ko;q=0.1", "ko"),
        ("ko;level=1", "ko"),
    ],
)
def test_header_decides(header: str, language: str) -> None:
    assert preferred(header) == language


@given(st.text(max_size=40))
def test_any_header_gives_a_language(header: str) -> None:
    assert preferred(header) in ("en", "ko")
